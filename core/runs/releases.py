"""One release on disk: an immutable dataset with its manifest, the promotion of its student, and the hash of every file. Reads no
row of a dataset.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from core.config.recipe import ParentRelease, Recipe
from core.config.teachers import TeacherConfig
from core.errors import StoreError
from core.hub_reference import remove_revision
from core.runs.records import CollapseVerdict, MixRecord, RunManifest
from core.runs.run_dir import RUNS_FOLDER
from core.runs.student_records import PairedComparison
from core.sample import FrozenModel
from core.storage.atomic_files import hash_file, read_json

RELEASE_MANIFEST = "manifest.json"
READ_ONLY_MODE = 0o444
"""Of every file of a release."""


class VerificationRecord(FrozenModel):
    """Everything that decided, apart from filters, which samples were kept."""

    topology: str
    checks: tuple[dict[str, Any], ...]
    """The table of each check with every default, and the hashes of the files that it names."""
    critic: dict[str, Any] | None
    """Its table, with its model if that is a teacher."""
    judge: dict[str, Any] | None
    """The table `agents.verifier` with its model, if a check asks a teacher."""
    prompts: dict[str, str]
    """Hashes of the recipe's own prompts of critic and checks, by file."""

    def find_missing(self, now: "VerificationRecord") -> list[str]:
        """What of this record `now` lacks, a phrase each. More checks than before are allowed."""
        missing = [] if now.topology == self.topology else [f'topology.kind = "{self.topology}"']
        for check in self.checks:
            same = [other for other in now.checks if other["type"] == check["type"]]
            if not any(_list_changes(check, other) == [] for other in same):
                changes = min((_list_changes(check, other) for other in same), key=len, default=[])
                options = f" with {', '.join(changes)}" if changes else ""
                missing.append(f"the check {check['type']}{options}")
        judged = (("agents.critic", self.critic, now.critic), ("agents.verifier", self.judge, now.judge))
        for name, before, after in judged:
            if before is not None and (after is None or _list_changes(before, after)):
                changed = f" with {', '.join(_list_changes(before, after))}" if after else ""
                missing.append(f"{name}{changed}")
        changed_prompts = {file for file, _ in self.prompts.items() ^ now.prompts.items()}
        return [*missing, *(f"the same prompt {file}" for file in sorted(changed_prompts))]


def _list_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys of `before` with another value in `after`, each with its value. Later versions may add keys."""
    return [f"{key} = {value!r}" for key, value in before.items() if key not in after or after[key] != value]


def describe_verification(
    recipe: Recipe, sources: Mapping[str, str], *, asks: bool, writing_prompts: frozenset[str]
) -> VerificationRecord:
    """The verification of a resolved recipe.

    Args:
        recipe: with the defaults of its family and checks.
        sources: hashes of its files, as in a run's identity.
        asks: whether one of its checks calls a teacher.
        writing_prompts: the roles whose prompts only write candidates.
    """
    checks = []
    for verifier in recipe.verifiers:
        table = verifier.model_dump(mode="json")
        files = {f"hash of {value}": sources[value] for value in table.values() if _is_source(value, sources)}
        checks.append({**table, **files})
    agents, critic = recipe.agents, None
    if agents.critic and agents.critic.type == "teacher":
        critic = {
            **agents.critic.model_dump(mode="json"),
            "model": identify_model(recipe.teachers[agents.critic.teacher]),
        }
    elif agents.critic:
        critic = {"type": agents.critic.type, "min_score": agents.critic.min_score}
    judge = None
    if asks:
        judge = {
            **agents.verifier.model_dump(mode="json"),
            "model": identify_model(recipe.teachers[agents.verifier.teacher]),
        }
    own = {
        name.removeprefix("prompts/own/"): digest for name, digest in sources.items() if name.startswith("prompts/own/")
    }
    prompts = {file: digest for file, digest in own.items() if file.removesuffix(".md") not in writing_prompts}
    return VerificationRecord(
        topology=recipe.topology.kind, checks=tuple(checks), critic=critic, judge=judge, prompts=prompts
    )


def _is_source(value: object, sources: Mapping[str, str]) -> bool:
    return isinstance(value, str) and value in sources


def identify_model(teacher: TeacherConfig) -> str:
    """A teacher's model without its commit on the Hub, and with its endpoint if it has one."""
    model = remove_revision(teacher.model)
    return f"{model} at {teacher.endpoint}" if teacher.endpoint else model


class PromotionRecord(FrozenModel):
    """Whether the student of a release writes the samples of the next generation, and why."""

    promoted: bool
    reasons: tuple[str, ...] = ()
    """Why not, a sentence each."""
    weights: str | None = None
    """SHA-256 of the released weights, if it is promoted."""
    generator: str
    """The model that the student was compared with."""
    replaces: str
    """The recipe's own generator. If a recipe names another one later, the promotion no longer holds."""
    comparison: PairedComparison | None
    """The student minus that model on held-out requests."""
    general: PairedComparison | None
    """The student minus its start on the general panel."""
    max_general_loss: float
    verification: VerificationRecord
    """Of the data that the student was trained on."""


class LineageRecord(FrozenModel):
    """`lineage.json`: the position of a release in its lineage."""

    recipe: str
    generation: int
    ancestors: tuple[ParentRelease, ...]
    """From the first to its parent."""
    mix: MixRecord
    verdict: CollapseVerdict | None = None
    """The collapse verdict with which it was released; None if it was not assessed."""
    promotion: PromotionRecord | None = None
    """None if the recipe promotes no student."""


class ReleaseManifest(BaseModel):
    """`manifest.json` of a release."""

    release: str
    """`recipe/generation`."""
    released: str
    run: RunManifest
    """As its run ended."""
    verdict: CollapseVerdict | None = None
    """As in `LineageRecord`: `inconclusive` marks a release with too few documents to tell."""
    seeds: int
    """Seeds that it and all releases before it have used."""
    files: dict[str, str]
    """SHA-256 of every other file, by path in the release."""
    digest: str
    """SHA-256 of all fields above, computed by `compute_manifest_digest`: the release's identity."""


def compute_manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's canonical JSON without `digest`."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Release:
    """A release whose manifest was read; `verify_files` checks its files."""

    path: Path
    manifest: ReleaseManifest
    lineage: LineageRecord

    @property
    def name(self) -> str:
        return self.manifest.release

    @property
    def generation(self) -> int:
        return self.lineage.generation

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @property
    def promoted(self) -> bool:
        """Whether its student writes the samples of the next generation."""
        return self.lineage.promotion is not None and self.lineage.promotion.promoted

    @cached_property
    def as_parent(self) -> ParentRelease:
        return ParentRelease(release=self.name, digest=self.manifest.digest, seeds=self.manifest.seeds)

    @property
    def ancestry(self) -> tuple[ParentRelease, ...]:
        """All releases from the first to this one."""
        return (*self.lineage.ancestors, self.as_parent)

    def verify_files(self) -> None:
        """Compare every file with its hash.

        Raises:
            StoreError: naming the first file that differs from the release.
        """
        files = {str(p.relative_to(self.path)): p for p in self.path.rglob("*") if p.is_file()}
        for name in sorted({*self.manifest.files, *files} - {"manifest.json"}):
            if name not in files:
                raise self._build_damage_error(name, "is missing")
            if name not in self.manifest.files:
                raise self._build_damage_error(name, "was not released with it")
            if hash_file(files[name]) != self.manifest.files[name]:
                raise self._build_damage_error(name, "is not what was released: its SHA-256 differs")

    def _build_damage_error(self, name: str, what: str) -> StoreError:
        return StoreError(f"{self.path / name}: {what}; {_advise_rollback(self.path, self.lineage.recipe)}")


def _advise_rollback(release: Path, recipe: str) -> str:
    folder = next((folder for folder in release.parents if folder.name == recipe), None)
    if folder is None:
        return "get the release again"  # a copy in no lineage
    releases, words = folder.parent, ["stillhouse", "rollback", recipe]
    if releases.resolve() != RELEASES_FOLDER.resolve():
        words += ["--runs-dir", str(releases.parent / "runs")]  # any folder next to the releases names them
    return f"restore the file from a copy, or remove the release from its lineage with `{shlex.join(words)}`"


def is_release(path: Path) -> bool:
    """Whether `path` is a release, complete or with missing files."""
    marks: dict[str, type[BaseModel]] = {"manifest.json": ReleaseManifest, "lineage.json": LineageRecord}
    for name, model in marks.items():
        with suppress(StoreError):
            content = read_json(path / name)
            required = {key for key, field in model.model_fields.items() if field.is_required()}
            if isinstance(content, dict) and required <= content.keys():
                return True
    return False


def read_release(path: Path) -> Release:
    """The release in `path`, its manifest compared with its digest.

    Raises:
        StoreError: if it cannot be read, or was changed.
    """
    whole = read_json(path / "manifest.json")
    try:
        manifest = ReleaseManifest.model_validate(whole)
        lineage = LineageRecord.model_validate(read_json(path / "lineage.json"))
    except ValidationError as error:
        what = error.errors(include_url=False)[0]
        where = ".".join(map(str, what["loc"]))
        raise StoreError(f"{path}: is not a readable release: {where}: {what['msg']}") from None
    if compute_manifest_digest(whole) != manifest.digest:
        what_differs = f"{path / 'manifest.json'}: is not what was released: its digest differs"
        raise StoreError(f"{what_differs}; {_advise_rollback(path, lineage.recipe)}")
    return Release(path, manifest, lineage)


def locate_statement(release: Path) -> Path:
    """The signed statement next to a release, which may be missing: nothing is ever added to the release itself."""
    return release.with_name(f"{release.name}.statement.json")


def locate_releases(runs: Path) -> Path:
    """The folder of releases for the folder `runs`: next to it."""
    return Path(os.path.normpath(runs / ".." / "releases"))


RELEASES_FOLDER = locate_releases(Path(RUNS_FOLDER))
