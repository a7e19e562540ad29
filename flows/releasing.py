"""From a finished run to a release, and a lineage in words and numbers. Knows runs, releases and the gate; no rows.

A release is made under the lineage's lock, beside its place, and renamed to it when every byte is on the disk. So two at
once come one after the other, and one that is killed has not been.
"""

import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import GateNotMet, StoreError, UsageError
from core.release import Lineage, LineageRecord, Release, ReleaseManifest, digest_of_manifest, read_release, releases_of
from core.run import CollapseRecord, Manifest, MetricRecord, RunDir, RunState
from core.sample import index_of
from core.store import file_hash, read_columns, write_json, written_whole
from flows.card import mix_words
from flows.gates import refusals
from flows.words import clock, number, place_of, plural

READ_ONLY = 0o444
SPARKS = "▁▂▃▄▅▆▇█"


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
    return f"{lineage.recipe}: {told}\nnext: stillhouse lineage {lineage.recipe}"


class Generation(NamedTuple):
    """A release as the lineage is drawn: with what is wrong with it, if anything is."""

    number: int
    release: Release | None
    fault: str
    aside: bool


def generations_of(lineage: Lineage) -> list[Generation]:
    """All of them, every file held against its hash: those of the lineage in its order, then those aside."""
    here = [_looked_at(lineage.path, number, aside=False) for number in lineage.generations()]
    try:
        lineage.releases()
    except StoreError as error:
        if not any(one.fault for one in here):
            here[-1] = here[-1]._replace(fault=str(error))
    return [*here, *(_looked_at(lineage.aside_folder, number, aside=True) for number in lineage.aside())]


def _looked_at(folder: Path, number: int, *, aside: bool) -> Generation:
    release = None
    try:
        release = read_release(folder / str(number))
        release.check()
    except StoreError as error:
        return Generation(number, release, str(error), aside)
    return Generation(number, release, "", aside)


def lineage_numbers(lineage: Lineage, found: Sequence[Generation]) -> dict[str, Any]:
    """The lineage for machines."""
    return {
        "recipe": lineage.recipe,
        "newest": next((one.number for one in reversed(found) if not one.aside), None),
        "generations": [_numbers_of(one) for one in found],
    }


def _numbers_of(one: Generation) -> dict[str, Any]:
    told: dict[str, Any] = {"generation": one.number, "aside": one.aside, "fault": one.fault or None}
    if one.release is None:
        return told
    run, line = one.release.manifest.run, one.release.lineage
    measured = run.collapse.metrics if run.collapse else []
    return {
        **told,
        "path": str(one.release.path),
        "digest": one.release.manifest.digest,
        "released": one.release.manifest.released,
        "run": run.run,
        "parent": line.ancestors[-1].generation if line.ancestors else None,
        "counts": run.counts.model_dump(),
        "rows": line.mix.model_dump(),
        "verdict": run.collapse.verdict if run.collapse else None,
        "gated": run.gated,
        "metrics": {metric.name: metric.model_dump(exclude={"name", "meaning"}) for metric in measured},
        "student": run.student.model_dump() if run.student else None,
    }


def lineage_text(lineage: Lineage, found: Sequence[Generation]) -> str:
    """The generations, a line each, and their metrics side by side with how each went."""
    here = [one for one in found if not one.aside]
    lines = [f"{lineage.recipe}  {plural(len(here), 'generation')}  {lineage.path}"]
    for place, one in enumerate(here):
        lines += _generation_lines(one, "   " if place == 0 else "└─▶")
    if aside := [one for one in found if one.aside]:
        lines.append("put aside by a rollback; `stillhouse rollback RECIPE GENERATION` brings one back")
        for one in aside:
            lines += _generation_lines(one, "   ")
    lines += _metric_table([one.release for one in here if one.release])
    return "\n".join(lines)


def _generation_lines(one: Generation, arrow: str) -> list[str]:
    if one.release is None:
        return [f"  {arrow} {one.number}  DAMAGED  {one.fault}"]
    release, run = one.release, one.release.manifest.run
    verdict = (run.collapse and run.collapse.verdict) or "no verdict"
    kept = f"kept {run.counts.kept:,} of {run.counts.candidates:,}"
    told = [run.run, clock(release.manifest.released), kept, verdict + ("" if run.gated else " (gate off)")]
    lines = [f"  {arrow} {one.number}  {'  '.join(told)}", f"         rows {mix_words(release.lineage.mix)}"]
    return [*lines, *([f"         DAMAGED  {one.fault}"] if one.fault else [])]


def _metric_table(releases: Sequence[Release]) -> list[str]:
    """A line for each metric: its value in each generation, marked where it lies outside real text of that size, and how the
    ratio to real text went, since the values themselves change with the size.
    """
    found = [(one.generation, collapse) for one in releases if (collapse := one.manifest.run.collapse)]
    names = list(dict.fromkeys(metric.name for _, collapse in found for metric in collapse.metrics))
    if not names:
        return []
    head = "".join(f"{generation:>10} " for generation, _ in found)
    sizes = "".join(f"{collapse.documents:>10,} " for _, collapse in found)
    lines = ["", f"{'':<20}{head}  against real text", f"{'documents compared':<20}{sizes}"]
    lines += [_metric_line(name, [_metric(collapse, name) for _, collapse in found]) for name in names]
    return [*lines, "< below and > above where real text of that size varies"]


def _metric(collapse: CollapseRecord, name: str) -> MetricRecord | None:
    return next((metric for metric in collapse.metrics if metric.name == name), None)


def _metric_line(name: str, found: Sequence[MetricRecord | None]) -> str:
    marks = {"below": "<", "above": ">", "inside": " "}
    values = "".join(f"{number(m.candidate):>10}{marks[place_of(m)]}" if m else f"{'-':>10} " for m in found)
    ratios = [m.candidate / m.reference for m in found if m and m.reference]
    went = f"{sparks(ratios)} {ratios[0]:.2f} to {ratios[-1]:.2f}" if len(ratios) > 1 else ""
    return f"{name:<20}{values}  {went}".rstrip()


def sparks(values: Sequence[float]) -> str:
    """The values as bars, the lowest and the highest of them the ends of the scale."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in values)
