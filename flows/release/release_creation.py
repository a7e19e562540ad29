"""Makes a release of a finished run. Knows runs, releases and the gate; of rows only how many each split has.

A release is written under the lineage's lock in a temporary folder, and renamed when every byte is on disk. So two processes
release one after the other, and a killed process leaves no release.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from core.config.recipe import Recipe
from core.config.teachers import PROMOTED_WEIGHTS
from core.errors import GateNotMet, StoreError, UsageError
from core.runs.lineage import Lineage
from core.runs.records import RunManifest, RunState
from core.runs.releases import (
    READ_ONLY_MODE,
    LineageRecord,
    Release,
    ReleaseManifest,
    compute_manifest_digest,
    locate_releases,
    read_release,
)
from core.runs.run_dir import RUNS_FOLDER, RunDir, format_current_time
from core.sample import parse_sample_index
from core.storage.atomic_files import hash_file, write_atomically, write_json
from core.storage.sample_files import read_sample_columns
from core.tracing import open_trace
from flows.data.run_storage import RunStorage
from flows.release.release_documents import TEMPLATES, write_release_documents
from flows.release.release_gate import STUDENT_WEIGHTS, decide_promotion, find_release_refusals, format_promotion
from flows.terminal.console import SESSION
from flows.terminal.suggested_commands import (
    build_runs_dir_arguments,
    find_runs_dir,
    format_command,
    format_next_line,
    format_resume_hint,
)
from flows.terminal.text_format import VALUE_WIDTH, create_environment


class CreatedRelease(NamedTuple):
    release: Release
    already_released: bool
    """Whether the run was released before this call."""


def create_release(run: RunDir) -> CreatedRelease:
    """Make a release of the run, the next generation of its recipe; or find the release that was made of it.

    Raises:
        GateNotMet: with every reason why the run may not be released.
        UsageError: if the run is not finished, or does not build on the newest release.
        StoreError: if a file of the run or the lineage is damaged, or a file cannot be written.
    """
    recipe = run.read_recipe()
    lineage = Lineage(locate_releases(run.path.parent) / recipe.name)
    with lineage.lock(), run.lock():
        manifest = run.read_manifest()
        if release := lineage.find_by_run_digest(manifest.digest):
            if lineage.is_aside(release):
                words = (
                    "rollback",
                    recipe.name,
                    str(release.generation),
                    *build_runs_dir_arguments(find_runs_dir(run)),
                )
                advice = f"restore it with `{format_command(*words)}`"
                raise UsageError(f"{run.name}: was released as {release.name}, which was set aside; {advice}")
            return CreatedRelease(release, already_released=True)
        if manifest.state not in (RunState.done, RunState.partial):
            raise UsageError(f"{run.name}: is {manifest.state}; {format_resume_hint(run, manifest)}, then release it")
        if manifest.dataset.mix is None or run.own_rows_file.name not in manifest.files:
            hint = format_resume_hint(run, manifest)
            raise UsageError(f"{run.name}: an older version, without releases, made this run; {hint}, then release it")
        if refusals := find_release_refusals(manifest):
            raise GateNotMet("\n  ".join([f"{run.name} is not released:", *map(str, refusals)]))
        line = lineage.read_verified()
        parent, newest = run.read_parent(), line[-1].as_parent if line else None
        if parent != newest:
            parent_clause = f"builds on {parent.release}" if parent else "builds on no release"
            newest_clause = f"the newest is {newest.release}" if newest else "there is none now"
            raise UsageError(
                f"{run.name}: {parent_clause}, but {newest_clause}, so it may repeat released samples; run {recipe.name} again"
            )
        return CreatedRelease(_write_release(run, recipe, lineage, line), already_released=False)


def release_run(run: RunDir, storage: RunStorage) -> CreatedRelease:
    """`create_release` of a run in `storage`, while no other machine can change the lineage. Raises as it does."""
    recipe = run.read_recipe().name
    attributes = {"gen_ai.workflow.name": recipe, "stillhouse.stage": "release"}
    with open_trace(f"release {recipe}", run.name, attributes, SESSION.print_message), storage.lock_lineage(recipe):
        return create_release(run)


def _write_release(run: RunDir, recipe: Recipe, lineage: Lineage, line: Sequence[Release]) -> Release:
    """The release and the promotion of its student are one folder, so that a kill leaves both or neither."""
    manifest, generation = run.read_manifest(), lineage.next_generation()
    ancestors = line[-1].ancestry if line else ()
    assert manifest.dataset.mix is not None
    path = lineage.path / str(generation)
    with write_atomically(path, READ_ONLY_MODE) as folder:
        folder.mkdir()
        files = dict(_copy_released_files(run, manifest, folder))
        verdict = manifest.collapse.verdict if manifest.collapse else None
        promotion = decide_promotion(run, manifest, recipe) if recipe.lineage.promote else None
        if promotion and promotion.promoted:
            files[PROMOTED_WEIGHTS] = _copy_released_file(run, manifest, STUDENT_WEIGHTS, folder / PROMOTED_WEIGHTS)
        record = LineageRecord(
            recipe=lineage.recipe, generation=generation, ancestors=ancestors, mix=manifest.dataset.mix, verdict=verdict,
            promotion=promotion,
        )  # fmt: skip
        without = set() if promotion else {"promotion"}
        write_json(folder / "lineage.json", record.model_dump(mode="json", exclude=without))
        files["lineage.json"] = hash_file(folder / "lineage.json")
        released = format_current_time()
        files |= write_release_documents(folder, recipe, manifest, record, released, run.read_sources())
        last_sample = max(
            parse_sample_index(name)
            for index in run.shards()
            for name in read_sample_columns(run.shard_file(index), ("id",))["id"]
        )
        used_seeds = last_sample // recipe.answers_per_seed + 1  # gaps included
        whole = ReleaseManifest(
            release=f"{lineage.recipe}/{generation}",
            released=released,
            run=manifest.model_copy(update={"invocation": None}),
            verdict=verdict,
            seeds=(ancestors[-1].seeds if ancestors else 0) + used_seeds,
            files=files,
            digest="",
        ).model_dump(mode="json")
        write_json(folder / "manifest.json", {**whole, "digest": compute_manifest_digest(whole)})
    return read_release(path)


def _copy_released_files(run: RunDir, manifest: RunManifest, folder: Path) -> Iterator[tuple[str, str]]:
    """Copy dataset, rows, images and recording of the run. Yields each path with its hash, as recorded when the run ended."""
    names = [run.own_rows_file.name, run.pairs_file.name]
    for name in manifest.files:
        if name in names or name.startswith((f"{run.dataset.name}/", f"{run.images.name}/", "recording/")):
            yield name, _copy_released_file(run, manifest, name, folder / name)


def _copy_released_file(run: RunDir, manifest: RunManifest, name: str, copy: Path) -> str:
    """Copy a file of the run. Returns its hash. Raises StoreError if it is missing, or was changed since the run ended."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(run.path / name, copy)
    except FileNotFoundError:
        raise StoreError(f"{run.path / name}: is missing; {format_resume_hint(run, manifest)}") from None
    if hash_file(copy) != manifest.files[name]:
        raise StoreError(f"{run.path / name}: was changed since the run ended; {format_resume_hint(run, manifest)}")
    return manifest.files[name]


def format_created_release(created: CreatedRelease, runs_dir: str = RUNS_FOLDER) -> str:
    """The output of `release`, called with this `--runs-dir`."""
    hint = format_next_line("lineage", created.release.lineage.recipe, *build_runs_dir_arguments(runs_dir))
    return f"{describe_created_release(created)}\n{hint}"


def describe_created_release(created: CreatedRelease) -> str:
    release = created.release
    text = create_environment(TEMPLATES).get_template("release.txt").render(
        release=release, already_released=created.already_released, run=release.manifest.run, width=VALUE_WIDTH,
        promotion=format_promotion(release),
    )  # fmt: skip
    return "\n".join(line for line in text.splitlines() if line)


def format_rollback(lineage: Lineage, runs_dir: str = RUNS_FOLDER) -> str:
    """The output of `rollback`, called with this `--runs-dir`: the newest generation, and those set aside."""
    newest, aside = [
        [str(number) for number in numbers] for numbers in (lineage.list_generations()[-1:], lineage.list_aside())
    ]
    state = f"the newest generation is {''.join(newest) or 'none'}; aside {', '.join(aside) or 'none'}"
    options = build_runs_dir_arguments(runs_dir)
    hint = (
        [f"hint: to restore {aside[-1]}: {format_command('rollback', lineage.recipe, aside[-1], *options)}"]
        if aside
        else []
    )
    return "\n".join([f"{lineage.recipe}: {state}", *hint, format_next_line("lineage", lineage.recipe, *options)])
