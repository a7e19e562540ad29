"""A lineage in words and numbers: its generations, their metrics, and where they are going. Knows no rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import StoreError
from core.recipe import Recipe
from core.release import Lineage, Release, read_release, releases_of
from core.run import CollapseRecord, MetricRecord, RunDir
from filters.trend import Trend, trend_of
from flows.card import mix_words
from flows.words import clock, number, place_of, plural

SPARKS = "▁▂▃▄▅▆▇█"


def comparisons_before(run: RunDir, recipe: Recipe) -> dict[str, CollapseRecord]:
    """What was found of the releases that a run builds on, by generation, from the first; empty where they cannot be read."""
    parent = run.read_parent() if run.recipe_file.is_file() else None
    if parent is None:
        return {}
    try:
        releases = Lineage(releases_of(run.path.parent) / recipe.name).releases()
    except StoreError:
        return {}
    names = [one.name for one in releases]
    before = releases[: names.index(parent.release) + 1] if parent.release in names else []
    found = {str(one.generation): one.manifest.run.collapse for one in before}
    return {generation: record for generation, record in found.items() if record}


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
        "trend": _trend_numbers(found),
        "generations": [_numbers_of(one) for one in found],
    }


def _trend_numbers(found: Sequence[Generation]) -> dict[str, Any] | None:
    told = trend_of(_comparisons(found))
    return {"slope": told.slope, "z": told.z, "falling": told.falling} if isinstance(told, Trend) else None


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
    if told := trend_of(_comparisons(found)):
        lines.append(f"trend  {told}")
    return "\n".join(lines)


def _comparisons(found: Sequence[Generation]) -> list[CollapseRecord]:
    runs = [one.release.manifest.run for one in found if one.release and not one.aside]
    return [run.collapse for run in runs if run.collapse]


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
