"""What the summary of a release's training content states, gathered from its records. Reads no row.

It depends on nothing else (no clock, no path of this machine), so the same release always gets the same text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from agents.sources.seed_source import find_seed_source
from core.config.recipe import Recipe
from core.plugins import load_hooks
from core.runs.records import RunManifest
from core.runs.releases import LineageRecord
from flows.data.teacher_terms import TeacherTerms, describe_teacher_terms
from flows.terminal.run_summary import summarize_run


class UsedTeacher(NamedTuple):
    """A model that wrote or judged something."""

    terms: TeacherTerms
    roles: Sequence[str]


class UsedSource(NamedTuple):
    """A file or text from which samples were made, or with which they were compared."""

    name: str
    """Its file name, without folders of the machine where the run was made."""
    kind: Literal["seeds", "documents", "real rows", "reference", "prompt", "other"]
    digest: str | None
    """The first 16 digits of its SHA-256, or a digest of its parts, as recorded when the run was opened."""


class ReleaseFacts(NamedTuple):
    """Everything that the summary states."""

    recipe: Recipe
    filters: Mapping[str, str]
    """What each removes, by its type."""
    manifest: RunManifest
    lineage: LineageRecord
    released: str
    """ISO time in UTC."""
    teachers: Sequence[UsedTeacher]
    sources: Sequence[UsedSource]

    @property
    def name(self) -> str:
        return f"{self.lineage.recipe}/{self.lineage.generation}"

    @property
    def software(self) -> str:
        return f"Stillhouse {self.manifest.versions.get('stillhouse', '')}".strip()

    @property
    def masks_personal_data(self) -> bool:
        return "pii" in self.filters

    @property
    def people(self) -> str:
        """What people did to the rows of the release's own run, without a full stop; empty if they did nothing."""
        hooks = load_hooks(self.manifest.plugins)
        return "; ".join(filter(None, (one.describe_people(self.manifest) for one in hooks)))


def gather_release_facts(
    recipe: Recipe,
    manifest: RunManifest,
    lineage: LineageRecord,
    released: str,
    sources: Mapping[str, str],
) -> ReleaseFacts:
    """`sources` are the hashes of the recipe's files by name, as in the run's identity; the others as in `ReleaseFacts`."""
    teachers = [
        UsedTeacher(describe_teacher_terms(model), roles)
        for model, roles in summarize_run(manifest, recipe).teachers.items()
    ]
    used = _list_sources(recipe, sources)
    filters = {config.type: config.about for config in recipe.filters}
    return ReleaseFacts(recipe, filters, manifest, lineage, released, teachers, used)


def _list_sources(recipe: Recipe, sources: Mapping[str, str]) -> list[UsedSource]:
    source = find_seed_source(recipe, Path())
    kinds: dict[str | None, Literal["seeds", "documents", "real rows", "reference"]] = {
        recipe.collapse.reference if recipe.collapse else None: "reference",
        recipe.lineage.real: "real rows",
        recipe.seeds.documents: "documents",
        source.file if source else None: "seeds",
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
