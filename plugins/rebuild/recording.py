"""What a release carries so that it can be made again: seeds, requests and replies, every verdict, the recipe, and the files that
the run read. Makes nothing again.

    recording/samples.jsonl    as `run --record` writes it
    recording/verdicts.jsonl   what checks, critic and filters decided about each sample
    recording/held-out.jsonl   the requests that no student may be trained on, in random order
    recording/recipe.json      the resolved recipe, the hashes of its files, and the parent release
    recording/inputs.json      SHA-256 of each file that the run read, and the packages of its environment
    recording/files/           these files, without folders of seeds unless the recipe says `rebuild.documents`
"""

import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import ValidationError

from core.config.recipe import Recipe
from core.config.teachers import REPLAY_PREFIX
from core.errors import StoreError, UsageError
from core.project_files import find_referenced_file
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir, StoredRecipe
from core.sample import Critique, FrozenModel, RejectionReason, Sample, Verdict, conversation_digest
from core.storage.atomic_files import hash_file, read_record, write_atomically, write_json
from core.storage.recording import write_recording
from flows.clean.applied_overrides import read_run_overrides
from flows.data.curated_run import read_finished_samples
from plugins.rebuild.config import NAME, RebuildConfig
from plugins.rebuild.held_out import list_held_out_requests, write_held_out_requests

RECORDING = "recording"
"""The folder in a run and in its release."""
SAMPLES, VERDICTS = f"{RECORDING}/samples.jsonl", f"{RECORDING}/verdicts.jsonl"
HELD_OUT = f"{RECORDING}/held-out.jsonl"
CONNECTION: dict[str, Any] = {"base_url": None, "batch": False, "draft": None, "engine": {}, "extra": {}}
"""Keys that a teacher does not need that answers from a recording."""
PROMPT_HASHES = "prompts/"
"""The beginning of the names of prompts among the hashes of a run's files."""


class RebuildRecord(FrozenModel):
    """What a run recorded."""

    samples: int
    files: int
    reviewed: int
    """Samples that people decided about, whose decisions are not recorded."""
    held_out: str
    """SHA-256 of the file of held-out requests: known before a student is trained."""


class RecordedInputs(FrozenModel):
    """What a run read, and where it ran."""

    files: dict[str, str]
    """SHA-256 of each file, by its name in the recipe; of a file in a folder, with the folder's name."""
    left_out: tuple[str, ...]
    """The names in the recipe that only their hash is recorded of."""
    environment: dict[str, str]
    """The version of Python, the system, and the version of each package that the run imported and Stillhouse names."""


class RecordedVerdict(FrozenModel):
    """What was decided about a sample."""

    sample: int
    state: str
    reason: str | None
    detail: str
    revisions: int
    candidate: str
    """Digest of its conversation."""
    verdicts: tuple[Verdict, ...]
    critiques: tuple[Critique, ...]
    attempts: tuple[bool, ...]


def write_release_recording(run: RunDir, manifest: RunManifest) -> None:
    """Write the recording of a curated run in place of an earlier one, and its record in the manifest.

    Raises:
        StoreError: if a file cannot be read or written.
        UsageError: naming a line of reviews that cannot be used.
    """
    recipe, stored = run.read_recipe(), read_record(run.recipe_file, StoredRecipe)
    config = recipe.section(RebuildConfig) or RebuildConfig()
    with write_atomically(run.path / RECORDING) as folder:
        folder.mkdir()
        samples = write_recording(folder / "samples.jsonl", recipe.family, read_finished_samples(run))
        with (folder / "verdicts.jsonl").open("w", encoding="utf-8") as lines:
            lines.writelines(_record_verdict(one).model_dump_json() + "\n" for one in read_finished_samples(run))
        replayed = replay_teachers(recipe, folder / "samples.jsonl") if samples else recipe
        write_held_out_requests(folder / "held-out.jsonl", list_held_out_requests(run, replayed))
        write_json(folder / "recipe.json", stored.model_dump(mode="json", exclude={"folder"}))
        names = list(_list_input_names(recipe, stored.identity.sources, run.read_recipe_folder()))
        left_out = [] if config.documents else [name for name in names if _is_seed_folder(name, recipe, run)]
        inputs = _copy_inputs(run, [name for name in names if name not in left_out], folder / "files")
        environment = read_environment(list_imported_packages())
        record = RecordedInputs(files=inputs, left_out=tuple(left_out), environment=environment)
        write_json(folder / "inputs.json", record.model_dump(mode="json"))
    reviewed = len(read_run_overrides(run).decisions)
    held_out = hash_file(run.path / HELD_OUT)
    manifest.put(NAME, RebuildRecord(samples=samples, files=len(inputs), reviewed=reviewed, held_out=held_out))


def replay_teachers(recipe: Recipe, samples: Path) -> Recipe:
    """The recipe with the same limits of teachers, and the recorded replies."""
    changes = {**CONNECTION, "model": f"{REPLAY_PREFIX}{samples}"}
    teachers = {name: teacher.model_copy(update=changes) for name, teacher in recipe.teachers.items()}
    return recipe.model_copy(update={"teachers": teachers})


def find_unportable_names(recipe: Recipe, sources: Iterable[str]) -> list[str]:
    """The files of a recipe that have no place of their own on another machine: absolute paths, and paths out of its folder."""
    named = [*sources, *filter(None, [recipe.prompts])]
    return [name for name in named if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]


def _list_input_names(recipe: Recipe, sources: Iterable[str], folder: Path) -> Iterator[str]:
    """The files and folders that a run read, by their names in the recipe. Installed parts and prompts of families are none."""
    named = [name for name in sources if not name.startswith(PROMPT_HASHES)]
    for name in dict.fromkeys([*named, *filter(None, [recipe.prompts])]):
        if find_referenced_file(name, folder).exists():
            yield name


def _is_seed_folder(name: str, recipe: Recipe, run: RunDir) -> bool:
    if name == recipe.prompts:
        return False
    return name == recipe.seeds.documents or find_referenced_file(name, run.read_recipe_folder()).is_dir()


def _copy_inputs(run: RunDir, names: Iterable[str], to: Path) -> dict[str, str]:
    """SHA-256 of each copy, by name."""
    hashes = {}
    for name in names:
        place = find_referenced_file(name, run.read_recipe_folder())
        files = sorted(one for one in place.rglob("*") if one.is_file()) if place.is_dir() else [place]
        for file in files:
            copied = PurePosixPath(name, file.relative_to(place)) if place.is_dir() else PurePosixPath(name)
            (to / copied).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(file, to / copied)
            except OSError as error:
                raise StoreError(f"{file}: cannot be recorded: {error.strerror}; the recipe names it") from None
            hashes[str(copied)] = hash_file(to / copied)
    return hashes


def _record_verdict(sample: Sample) -> RecordedVerdict:
    # What an endpoint said when it failed is no verdict, and no recording repeats it.
    detail = "" if sample.reason is RejectionReason.provider else sample.detail
    return RecordedVerdict(
        sample=sample.seed.index, state=sample.state, reason=sample.reason, detail=detail, revisions=sample.revisions,
        candidate=conversation_digest(sample.candidate.messages), verdicts=tuple(sample.verdicts),
        critiques=tuple(sample.critiques), attempts=sample.attempts,
    )  # fmt: skip


def read_verdicts(path: Path) -> list[RecordedVerdict]:
    """Raises StoreError naming the line that is none."""
    found = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            found.append(RecordedVerdict.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise StoreError(f"{path}:{number}: is no recorded verdict: {where}: {first['msg'].lower()}") from None
    return found


def list_imported_packages() -> list[str]:
    """The packages of Stillhouse's requirements that this process has imported, without those for developers."""
    try:
        named = [Requirement(line) for line in requires("stillhouse") or ()]
    except PackageNotFoundError:  # a checkout that is not installed
        return []
    of_module = packages_distributions()
    imported = {package for module in list(sys.modules) for package in of_module.get(module, ())}
    imported = {canonicalize_name(package) for package in imported}
    names = {one.name for one in named if 'extra == "dev"' not in str(one.marker)}
    return sorted({"stillhouse", *(name for name in names if canonicalize_name(name) in imported)})


def read_environment(packages: Iterable[str]) -> dict[str, str]:
    """Python, system, and the versions of these packages, as far as they are installed."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in packages:
        try:
            found[name] = version(name)
        except (PackageNotFoundError, ValueError):  # a release of others may name anything
            continue
    return found


def check_recorded(release: str, manifest: RunManifest) -> None:
    """Raises UsageError if the release has no recording, or people decided about its samples."""
    record = manifest.get(NAME, RebuildRecord)
    if record is None:
        raise UsageError(
            f"{release}: has no recording, so it cannot be rebuilt; add `[rebuild]` to its recipe, then release its next "
            "generation"
        )
    if record.reviewed:
        raise UsageError(
            f"{release}: people decided about {record.reviewed:,} of its samples, and a recording has no decisions of people; "
            "release a run without reviews to have one that can be rebuilt"
        )
