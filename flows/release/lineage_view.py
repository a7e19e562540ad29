"""A lineage as text and as JSON: its generations, their metrics and the trend. Reads no rows."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.config.recipe import Recipe
from core.errors import StoreError
from core.runs.lineage import Lineage
from core.runs.records import CollapseRecord
from core.runs.releases import Release, locate_releases, read_release
from core.runs.run_dir import RUNS_FOLDER, RunDir
from filters.collapse.tail_trend import TailTrend, find_lineage_trend
from flows.release.release_gate import format_promotion, is_marked_inconclusive
from flows.terminal.suggested_commands import build_runs_dir_arguments, format_command
from flows.terminal.text_format import TERMINAL_WIDTH, create_environment, format_number, locate_metric

TEMPLATES = Path(__file__).with_name("templates")
SPARKLINE_BARS = "▁▂▃▄▅▆▇█"
LINE_WIDTH = TERMINAL_WIDTH - len("         ")


def read_earlier_comparisons(run: RunDir, recipe: Recipe) -> dict[str, CollapseRecord]:
    """The collapse records of the releases that a run builds on, by generation, oldest first. Empty if they cannot be read."""
    records = {str(release.generation): release.manifest.run.collapse for release in read_earlier_releases(run, recipe)}
    return {generation: record for generation, record in records.items() if record}


def read_earlier_releases(run: RunDir, recipe: Recipe) -> list[Release]:
    """The releases that a run builds on, oldest first. Empty if they cannot be read."""
    parent = run.read_parent() if run.recipe_file.is_file() else None
    if parent is None:
        return []
    try:
        releases = Lineage(locate_releases(run.path.parent) / recipe.name).read_all()
    except StoreError:
        return []
    names = [release.name for release in releases]
    return releases[: names.index(parent.release) + 1] if parent.release in names else []


class LineageGeneration(NamedTuple):
    """A release of the lineage, with its fault if it is damaged."""

    number: int
    release: Release | None
    fault: str
    is_set_aside: bool


def inspect_generations(lineage: Lineage) -> list[LineageGeneration]:
    """All generations, every file checked against its hash: those of the lineage in order, then those set aside."""
    here = [_inspect_generation(lineage.path, number, aside=False) for number in lineage.list_generations()]
    try:
        lineage.read_all()
    except StoreError as error:
        if not any(generation.fault for generation in here):
            here[-1] = here[-1]._replace(fault=str(error))
    return [*here, *(_inspect_generation(lineage.aside_folder, number, aside=True) for number in lineage.list_aside())]


def _inspect_generation(folder: Path, number: int, *, aside: bool) -> LineageGeneration:
    release = None
    try:
        release = read_release(folder / str(number))
        release.verify_files()
    except StoreError as error:
        return LineageGeneration(number, release, str(error), aside)
    return LineageGeneration(number, release, "", aside)


def build_lineage_record(lineage: Lineage, generations: Sequence[LineageGeneration]) -> dict[str, Any]:
    """The JSON form of the lineage."""
    records = []
    for generation in generations:
        record: dict[str, Any] = {
            "generation": generation.number,
            "aside": generation.is_set_aside,
            "fault": generation.fault or None,
        }
        if release := generation.release:
            run, ancestors = release.manifest.run, release.lineage.ancestors
            metrics = run.collapse.metrics if run.collapse else []
            record |= {
                "path": str(release.path),
                "digest": release.manifest.digest,
                "released": release.manifest.released,
                "run": run.run,
                "parent": ancestors[-1].generation if ancestors else None,
                "counts": run.counts.model_dump(),
                "rows": release.lineage.mix.model_dump(),
                "verdict": run.collapse.verdict if run.collapse else None,
                "headline": run.collapse.headline if run.collapse else None,
                "inconclusive": is_marked_inconclusive(run),
                "gated": run.gate.gated,
                "plugins": run.plugins,
                "metrics": {metric.name: metric.model_dump(exclude={"name", "meaning"}) for metric in metrics},
                "student": run.student.model_dump() if run.student else None,
                "generator": run.agents.generator,
                "yield": round(run.counts.kept / run.counts.candidates, 4) if run.counts.candidates else None,
                "evaluation": run.evaluation.model_dump(exclude={"example"}) if run.evaluation else None,
                "promotion": release.lineage.promotion.model_dump() if release.lineage.promotion else None,
            }
        records.append(record)
    trend = find_lineage_trend(_collect_comparisons(generations))
    measured = {"slope": trend.slope, "z": trend.z, "falling": trend.falling} if isinstance(trend, TailTrend) else None
    newest = next((generation.number for generation in reversed(generations) if not generation.is_set_aside), None)
    return {"recipe": lineage.recipe, "newest": newest, "trend": measured, "generations": records}


def format_lineage(lineage: Lineage, generations: Sequence[LineageGeneration], runs_dir: str = RUNS_FOLDER) -> str:
    """The generations, one per line, then a table of their metrics with the trend of each."""
    current = [generation for generation in generations if not generation.is_set_aside]
    aside = [generation for generation in generations if generation.is_set_aside]
    words = ("rollback", lineage.recipe, str(aside[-1].number if aside else 0), *build_runs_dir_arguments(runs_dir))
    text = create_environment(TEMPLATES).get_template("lineage.txt").render(
        lineage=lineage, current=current, aside=aside, restore=format_command(*words), width=LINE_WIDTH,
        list_promotion_lines=lambda one: [line for text in format_promotion(one) for line in textwrap.wrap(text, LINE_WIDTH)],
    )  # fmt: skip
    lines = [line for line in text.splitlines() if line]
    lines += _format_metric_table([generation.release for generation in current if generation.release])
    if trend := find_lineage_trend(_collect_comparisons(generations)):
        lines.append(f"trend  {trend}")
    return "\n".join(lines)


def _collect_comparisons(generations: Sequence[LineageGeneration]) -> list[CollapseRecord]:
    runs = [
        generation.release.manifest.run
        for generation in generations
        if generation.release and not generation.is_set_aside
    ]
    return [run.collapse for run in runs if run.collapse]


def _format_metric_table(releases: Sequence[Release]) -> list[str]:
    """A line for each metric: its value in each generation, marked if it is outside the range of real text of that size, and the
    ratio to real text over the generations, since the values themselves change with the size.
    """
    comparisons = [(release.generation, record) for release in releases if (record := release.manifest.run.collapse)]
    names = list(dict.fromkeys(metric.name for _, record in comparisons for metric in record.metrics))
    if not names:
        return []
    head = "".join(f"{generation:>10} " for generation, _ in comparisons)
    sizes = "".join(f"{record.documents:>10,} " for _, record in comparisons)
    real = all(record.reference for _, record in comparisons)
    lines = ["", f"{'':<20}{head}" + "  against real text" * real, f"{'documents compared':<20}{sizes}"]
    marks = {"below": "<", "above": ">", "inside": " "}
    for name in names:
        values, ratios = "", []
        for _, record in comparisons:
            metric = next((metric for metric in record.metrics if metric.name == name), None)
            values += (
                f"{format_number(metric.candidate):>10}{marks[locate_metric(metric)]}" if metric else f"{'-':>10} "
            )
            if metric and metric.reference:
                ratios.append(metric.candidate / metric.reference)
        trend = f"{_format_sparkline(ratios)} {ratios[0]:.2f} to {ratios[-1]:.2f}" if len(ratios) > 1 else ""
        lines.append(f"{name:<20}{values}  {trend}".rstrip())
    limits = "where real text of that size varies" if real else "the limits"
    return [*lines, f"< below and > above {limits}"]


def _format_sparkline(values: Sequence[float]) -> str:
    """The values as bars, scaled from the lowest to the highest value."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(SPARKLINE_BARS[round((value - low) / span * (len(SPARKLINE_BARS) - 1))] for value in values)
