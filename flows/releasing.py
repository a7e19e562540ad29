"""From a finished run to a release, and back. Knows runs, releases and the gate; no rows.

A release is made under the lineage's lock, beside its place, and renamed to it when every byte is on the disk. So two at
once come one after the other, and one that is killed has not been.
"""

import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from core.errors import GateNotMet, StoreError, UsageError
from core.release import Lineage, LineageRecord, Release, ReleaseManifest, digest_of_manifest, read_release, releases_of
from core.run import Manifest, RunDir, RunState
from core.sample import index_of
from core.store import file_hash, read_columns, write_json, written_whole
from flows.card import mix_words
from flows.gates import refusals

READ_ONLY = 0o444


class Released(NamedTuple):
    release: Release
    before: bool
    """Whether it was there already."""


def release_run(run: RunDir) -> Released:
    """Make the next release of the run's recipe of it, or find the one that was made of it.

    Raises:
        GateNotMet: with every reason why it may not be released.
        UsageError: if it did not end in order, or does not build on the newest release.
        StoreError: if a file of it or of the lineage is damaged, or nothing can be written.
    """
    recipe = run.read_recipe()
    lineage = Lineage(releases_of(run.path.parent) / recipe.name)
    with lineage.locked(), run.locked():
        manifest = run.read_manifest()
        if found := lineage.made_of(manifest.digest):
            if lineage.is_aside(found):
                back = f"bring it back with `stillhouse rollback {recipe.name} {found.generation}`"
                raise UsageError(f"{run.name}: was released as {found.name}, which was put aside; {back}")
            return Released(found, before=True)
        _check_ended(run, manifest)
        if reasons := refusals(manifest):
            raise GateNotMet("\n  ".join([f"{run.name} is not released:", *reasons]))
        line = lineage.checked()
        _check_newest(run, line)
        return Released(_written(run, recipe.answers_per_seed, lineage, line), before=False)


def _check_ended(run: RunDir, manifest: Manifest) -> None:
    if manifest.state not in (RunState.done, RunState.partial):
        raise UsageError(f"{run.name}: is {manifest.state}; go on with --resume until it is done, then release it")
    if manifest.mix is None or run.own_file.name not in manifest.files:
        raise UsageError(f"{run.name}: was made before there were releases; go on with --resume, then release it")


def _check_newest(run: RunDir, line: Sequence[Release]) -> None:
    parent = run.read_parent()
    newest = line[-1].as_parent if line else None
    if parent != newest:
        built = f"builds on {parent.release}" if parent else "builds on no release"
        there = f"the newest is {newest.release}" if newest else "there is none now"
        recipe = run.read_recipe().name
        raise UsageError(
            f"{run.name}: {built}, but {there}, so that it may repeat what was released; run {recipe} again to build on that"
        )


def _written(run: RunDir, answers_per_seed: int, lineage: Lineage, line: Sequence[Release]) -> Release:
    manifest, generation = run.read_manifest(), lineage.next_generation()
    ancestors = line[-1].line if line else ()
    assert manifest.mix is not None
    place = lineage.path / str(generation)
    with written_whole(place) as folder:
        folder.mkdir()
        files = dict(_copied(run, manifest, folder))
        record = LineageRecord(recipe=lineage.recipe, generation=generation, ancestors=ancestors, mix=manifest.mix)
        write_json(folder / "lineage.json", record.model_dump(mode="json"))
        files["lineage.json"] = file_hash(folder / "lineage.json")
        whole = ReleaseManifest(
            release=f"{lineage.recipe}/{generation}",
            released=datetime.now(UTC).isoformat(timespec="seconds"),
            run=manifest,
            seeds=(ancestors[-1].seeds if ancestors else 0) + _used_seeds(run, answers_per_seed),
            files=files,
            digest="",
        ).model_dump(mode="json")
        write_json(folder / "manifest.json", {**whole, "digest": digest_of_manifest(whole)})
        for file in folder.rglob("*"):
            if file.is_file():
                file.chmod(READ_ONLY)
    return read_release(place)


def _copied(run: RunDir, manifest: Manifest, folder: Path) -> Iterator[tuple[str, str]]:
    """Copy what is released of the run; each path with its hash, which is the one that the run ended with."""
    whole = [run.own_file.name, run.pairs_file.name]
    for name, expected in manifest.files.items():
        if name in whole or name.startswith(f"{run.dataset.name}/"):
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(run.path / name, copy)
            except FileNotFoundError:
                raise StoreError(f"{run.path / name}: is missing; go on with --resume to make it again") from None
            if file_hash(copy) != expected:
                raise StoreError(
                    f"{run.path / name}: was changed since the run ended; go on with --resume to make it again"
                )
            yield name, expected


def _used_seeds(run: RunDir, answers_per_seed: int) -> int:
    """How many seeds its samples were made from, gaps among them counted."""
    last = max(index_of(name) for index in run.shards() for name in read_columns(run.shard_file(index), ("id",))["id"])
    return last // answers_per_seed + 1


def released_text(made: Released) -> str:
    """What `release` prints."""
    release, run = made.release, made.release.manifest.run
    lines = [f"release {release.name}{'  was there already' if made.before else ''}  {release.path}"]
    lines.append(f"  rows      {mix_words(release.lineage.mix)}")
    if run.collapse and run.collapse.verdict:
        lines.append(f"  verdict   {': '.join([run.collapse.verdict, '; '.join(run.collapse.evidence)]).rstrip(': ')}")
    if not run.gated:
        lines.append("  gate      off, by collapse.gate = false of the recipe")
    return "\n".join([*lines, f"next: stillhouse lineage {release.lineage.recipe}"])


def place_text(lineage: Lineage) -> str:
    """What `rollback` prints: where the lineage stands."""
    newest, aside = [[str(number) for number in numbers] for numbers in (lineage.generations()[-1:], lineage.aside())]
    told = f"the newest generation is {''.join(newest) or 'none'}; aside {', '.join(aside) or 'none'}"
    back = [f"to bring one back: stillhouse rollback {lineage.recipe} GENERATION"] if aside else []
    return "\n".join([f"{lineage.recipe}: {told}", *back, f"next: stillhouse lineage {lineage.recipe}"])
