"""How many of a recipe's queries a student can take: students of the default recipe next to the embedded teacher, and the
smallest next to a larger student.

The students of `benchmarks.retention`, each calibrated on seeds that no run sees; they are made first where they are not there.
`STILLHOUSE_STUDENTS` names the folder, where answers too are kept.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from agents.planning.plan_building import build_plan
from benchmarks.machine import describe_measurement
from benchmarks.retention import HALF, KEEP, RECIPE, SEEDS, SMALL, generate_run, open_folder, train_arm
from core.intervals import IntervalEstimate
from core.project_files import PROJECT
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_percent
from plugins.serving.cascade.cascade_calibration import calibrate_cascade, prepare_cascade_calibration
from plugins.serving.cascade.routing_curves import RoutingCurve
from plugins.serving.cascade.routing_result import RoutingResult, format_percentage_points

ASKED, DRAWS, ASKED_OF_PAIR = 400, 3, 1000
PAIR = f"{SMALL}, with the student of {HALF} in the teacher's place"


def table(
    keep: int = KEEP,
    seeds: int = ASKED,
    draws: int = DRAWS,
    pair_seeds: int = ASKED_OF_PAIR,
    *,
    pair_only: bool = False,
) -> str:
    with open_folder() as folder:
        run = generate_run(folder, keep)
        plan = build_plan(run.read_recipe(), PROJECT)
        students = {arm: train_arm(arm, SEEDS[0], run, folder)[0] for arm in (HALF, SMALL)}
        found = {}
        for arm, student in students.items() if not pair_only else ():
            task = prepare_cascade_calibration(student, plan, seeds, "q8_0", draws, run.cache)
            found[arm] = asyncio.run(calibrate_cascade(task, SESSION))
        task = prepare_cascade_calibration(
            students[SMALL], plan, pair_seeds, "q8_0", draws, run.cache, teacher=students[HALF]
        )
        found[PAIR] = asyncio.run(calibrate_cascade(task, SESSION))
    return format_page(found, keep)


def format_page(found: Mapping[str, RoutingResult], keep: int) -> str:
    lines = [
        f"{describe_measurement()}. `python -m benchmarks routing`",
        "",
        f"Recipe `{RECIPE}`, {keep} kept samples to learn from. Thresholds and the best signal (*) were chosen on half of the "
        "held-out seeds; all numbers but pass rates are of the other half. In parentheses, 95 % intervals. `over random`: the "
        "pass rate minus that of a random router that leaves the student the same share of queries.",
    ]
    for arm, one in found.items():
        lines += ["", *_format_arm(arm, one)]
    return "\n".join(lines)


def _format_arm(arm: str, one: RoutingResult) -> Iterator[str]:
    teacher = Path(one.teacher.model).name
    yield f"**Student of {arm}**, {one.seeds:,} seeds: {one.student_rate.format(format_percent)} pass, of the answers of "
    yield f"its teacher ({teacher}, {one.teacher_cost:,.0f} tokens a query) {one.teacher_rate.format(format_percent)}, "
    yield f"of both together {one.oracle[-1].format(format_percent)} with an oracle. A query takes {one.student_tokens:,.0f} "
    yield f"of its own tokens, and {one.draw_tokens:,.0f} more for agreement."
    yield one.answer
    yield ""
    yield (
        "| signal | area over random | of the oracle's | passed at 30 % teacher calls | of the gap | student takes, at 95 % "
        "| then passes, of the teacher's rate | over random |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for curve in one.curves:
        yield _format_row(curve, "*" if curve.signal == one.best else "")
    share = format_percent(1 - one.random_share_at_quality)
    yield f"| at random | 0 | 0 % | {one.random[6].format(format_percent)} | 30 % | {share} | | 0 |"
    yield f"| oracle | | 100 % | {one.oracle[6].format(format_percent)} | | | | |"


def _format_row(curve: RoutingCurve, mark: str) -> str:
    at = curve.at_quality
    cells = (
        f"`{curve.signal}`{mark}",
        curve.area.format(lambda value: f"{value:+.3f}"),
        "-" if curve.area_of_oracle is None else format_percent(curve.area_of_oracle),
        curve.at_share.quality.format(format_percent),
        _format_cell(curve.at_share.recovered),
        format_percent(1 - at.share.value),
        _format_cell(at.retention),
        "-" if at.over_random is None else at.over_random.format(format_percentage_points),
    )
    return f"| {' | '.join(cells)} |"


def _format_cell(measure: IntervalEstimate | None) -> str:
    return measure.format(format_percent) if measure else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=int, default=KEEP)
    parser.add_argument("--seeds", type=int, default=ASKED)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--pair-seeds", type=int, default=ASKED_OF_PAIR)
    parser.add_argument("--pair-only", action="store_true")
    given = parser.parse_args()
    page = table(given.keep, given.seeds, given.draws, given.pair_seeds, pair_only=given.pair_only)
    sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    main()
