"""What the documents of a release state, gathered once from its records and its files' schemas. Reads no row.

Documents depend on nothing else (no clock, no path of this machine), so the same release always gets the same documents.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

from core.config.recipe import Recipe
from core.plugins import load_hooks
from core.runs.records import RunManifest
from core.runs.releases import LineageRecord
from flows.data.dataset_card import list_active_teachers
from flows.data.teacher_terms import TeacherTerms, describe_teacher_terms

DATASET_FOLDER = "dataset/"
SPLITS = ("train", "validation")


class ReleasedFile(NamedTuple):
    """A file of the release."""

    path: str
    sha256: str
    size: int
    """In bytes."""


class UsedTeacher(NamedTuple):
    """A model that wrote or judged something."""

    terms: TeacherTerms
    roles: Sequence[str]


class UsedSource(NamedTuple):
    """A file or text from which samples were made, or with which they were compared."""

    name: str
    """Its file name, without folders of the machine where the run was made."""
    kind: Literal["seeds", "documents", "images", "real rows", "reference", "prompt", "other"]
    digest: str | None
    """The first 16 digits of its SHA-256, or a digest of its parts, as recorded when the run was opened."""


class ReleaseFacts(NamedTuple):
    """Everything that documents state."""

    recipe: Recipe | None
    """None for rows that a user gave and `filter` filtered."""
    filters: Mapping[str, str]
    """What each removes, by its type."""
    manifest: RunManifest
    lineage: LineageRecord
    released: str
    """ISO time in UTC."""
    run_digests: Mapping[str, str]
    """The digests of the runs of all earlier releases, by release."""
    teachers: Sequence[UsedTeacher]
    sources: Sequence[UsedSource]
    files: Sequence[ReleasedFile]
    """Those that were written before the document, in the order of their paths."""

    @property
    def name(self) -> str:
        return f"{self.lineage.recipe}/{self.lineage.generation}"

    @property
    def urn(self) -> str:
        """A name of this release that no other has: by the digest of its run."""
        return build_release_urn(self.name, self.manifest.digest)

    def find_urn(self, release: str) -> str:
        """The name of an earlier release, as its own documents have it."""
        return build_release_urn(release, self.run_digests[release])

    @property
    def version(self) -> str:
        """Semantic: rows of an earlier generation may be missing in a later one, so each is a major version."""
        return f"{self.lineage.generation}.0.0"

    @property
    def publisher(self) -> str:
        return self.manifest.publisher or "not stated"

    @property
    def software(self) -> str:
        return f"Stillhouse {self.manifest.versions.get('stillhouse', '')}".strip()

    @property
    def data_files(self) -> list[ReleasedFile]:
        return [file for file in self.files if file.path.startswith(DATASET_FOLDER) and not file.path.endswith(".md")]

    @property
    def masks_personal_data(self) -> bool:
        return "pii" in self.filters

    @property
    def people(self) -> str:
        """What people did to the rows of the release's own run, without a full stop; empty if they did nothing."""
        hooks = load_hooks(self.manifest.plugins)
        return "; ".join(filter(None, (one.describe_people(self.manifest) for one in hooks)))

    @property
    def summary(self) -> str:
        """One sentence about the dataset."""
        rows = self.lineage.mix.rows - self.lineage.mix.withheld
        if self.recipe is None:
            return f"{rows:,} of {self.manifest.counts.candidates:,} given rows, kept by filters: release {self.name}."
        real = f", all but {self.lineage.mix.real:,} of them" if self.lineage.mix.real else ""
        return (
            f"{rows:,} conversations{real} written by a language model and checked by programs before they were kept: release "
            f"{self.lineage.generation} of the recipe {self.lineage.recipe}, family {self.recipe.family}."
        )

    @property
    def collection(self) -> str:
        """How the rows came about, in a sentence."""
        if self.recipe is None:
            return "Given by the publisher; Stillhouse wrote none of the rows and knows neither their author nor their rights."
        return (
            f"Written by {', '.join(one.terms.model for one in self.teachers)} from the seeds of the recipe "
            f"{self.lineage.recipe} (run {self.manifest.run}, digest {self.manifest.digest})"
            + (f"; {self.people}." if self.people else ".")
        )

    @property
    def activity(self) -> str:
        """What made the dataset, without a full stop."""
        made = (
            f"run {self.manifest.run} of the recipe {self.lineage.recipe}" if self.recipe else "filters over given rows"
        )
        return f"{made}, digest {self.manifest.digest}"


def gather_release_facts(
    recipe: Recipe,
    manifest: RunManifest,
    lineage: LineageRecord,
    released: str,
    run_digests: Mapping[str, str],
    sources: Mapping[str, str],
    files: Sequence[ReleasedFile],
) -> ReleaseFacts:
    """`sources` are the hashes of the recipe's files by name, as in the run's identity; the others as in `ReleaseFacts`."""
    teachers = [
        UsedTeacher(describe_teacher_terms(model), roles)
        for model, roles in list_active_teachers(manifest, recipe).items()
    ]
    ordered = sorted(files, key=lambda file: file.path)
    used = _list_sources(recipe, sources)
    filters = {config.type: config.about for config in recipe.filters}
    return ReleaseFacts(recipe, filters, manifest, lineage, released, run_digests, teachers, used, ordered)


def _list_sources(recipe: Recipe, sources: Mapping[str, str]) -> list[UsedSource]:
    kinds: dict[str | None, Literal["seeds", "documents", "images", "real rows", "reference"]] = {
        recipe.collapse.reference if recipe.collapse else None: "reference",
        recipe.lineage.real: "real rows",
        recipe.seeds.documents: "documents",
        recipe.seeds.images: "images",
        recipe.seeds.path: "seeds",
    }
    used: list[UsedSource] = []
    for name, digest in sorted(sources.items()):
        plain = Path(name.replace("\\", "/")).name or name
        prompt = name.startswith("prompts/") or name.endswith(".md")
        used.append(UsedSource(plain, kinds.get(name, "prompt" if prompt else "other"), digest))
    named = {Path(name).name for name in sources}
    missing = [(name, kind) for name, kind in kinds.items() if name and Path(name).name not in named]
    return used + [UsedSource(Path(name).name, kind, None) for name, kind in missing]


def build_release_urn(release: str, digest: str) -> str:
    return f"urn:stillhouse:release:{quote(release, safe='')}:{digest[:16]}"


def build_urn(kind: str, name: str) -> str:
    return f"urn:stillhouse:{kind}:{quote(name, safe='')}"


def format_utc(iso: str) -> str:
    """An ISO time with a zone, in UTC and to the second, as SPDX demands: 2026-01-31T09:30:00Z."""
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def build_license_url(license_name: str) -> str | None:
    """The address of a licence's text, if it is one licence of the SPDX list or an address."""
    if license_name.startswith("https://"):
        return license_name
    single = re.fullmatch(r"(?!LicenseRef-)[A-Za-z0-9.+-]+", license_name)
    return f"https://spdx.org/licenses/{license_name}.html" if single else None
