"""How many of a recipe's queries a student can take: students of the default recipe beside the embedded teacher.

The students of `benchmarks.retention`, each calibrated on seeds that no run sees; they are made first where they are not there.
`STILLHOUSE_STUDENTS` names the folder, where answers too are kept.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping

from agents.plan import plan_of
from benchmarks.machine import measured_on
from benchmarks.retention import HALF, KEEP, RECIPE, SEEDS, SMALL, generated, students_folder, trained
from core.recipe import PROJECT
from core.shares import Measure
from flows.cascade import Routing
from flows.routing import calibrate, task_of
from flows.session import SESSION
from flows.words import percent
from students.routing import Curve

ASKED, DRAWS = 400, 3


def table(keep: int = KEEP, seeds: int = ASKED, draws: int = DRAWS) -> str:
    with students_folder() as folder:
        run = generated(folder, keep)
        plan = plan_of(run.read_recipe(), PROJECT)
        found = {}
        for arm in (HALF, SMALL):
            student, _ = trained(arm, SEEDS[0], run, folder)
            found[arm] = asyncio.run(calibrate(task_of(student, plan, seeds, "q8_0", draws, run.cache), SESSION))
    return page(found, keep)


def page(found: Mapping[str, Routing], keep: int) -> str:
    first = next(iter(found.values()))
    lines = [
        f"{measured_on()}. `python -m benchmarks routing`",
        "",
        f"Recipe `{RECIPE}`, {keep} kept samples to learn from; {first.seeds} held-out seeds, on {first.chosen_on} of which "
        f"thresholds and the best signal (*) were chosen; all numbers but pass rates are of the other {first.told_on}. "
        f"Teacher: {first.teacher.model}, {first.teacher_cost:,.0f} tokens a query. In parentheses, 95 % intervals.",
    ]
    for arm, one in found.items():
        lines += ["", *_arm(arm, one)]
    return "\n".join(lines)


def _arm(arm: str, one: Routing) -> Iterator[str]:
    yield f"**Student of {arm}**: {one.student_rate.told(percent)} pass, of its teacher's answers "
    yield f"{one.teacher_rate.told(percent)}, of both together {one.oracle[-1].told(percent)} where somebody knew whom to ask. "
    yield f"A query takes {one.student_tokens:,.0f} of its own tokens, and {one.draw_tokens:,.0f} more for agreement."
    yield one.answer
    yield ""
    yield (
        "| signal | area over random | of the oracle's | passed at 30 % teacher calls | of the gap | student takes, at 95 % "
        "| then passes, of the teacher's rate |"
    )
    yield "|---|---|---|---|---|---|---|"
    for curve in one.curves:
        yield _row(curve, "*" if curve.signal == one.best else "")
    yield f"| at random | 0 | 0 % | {one.random[6].told(percent)} | 30 % | {percent(1 - one.random_share_at_quality)} | |"
    yield f"| oracle | | 100 % | {one.oracle[6].told(percent)} | | | |"


def _row(curve: Curve, mark: str) -> str:
    at = curve.at_quality
    cells = (
        f"`{curve.signal}`{mark}",
        curve.area.told(lambda value: f"{value:+.3f}"),
        "-" if curve.area_of_oracle is None else percent(curve.area_of_oracle),
        curve.at_share.quality.told(percent),
        _cell(curve.at_share.recovered),
        percent(1 - at.share.value),
        _cell(at.retention),
    )
    return f"| {' | '.join(cells)} |"


def _cell(measure: Measure | None) -> str:
    return measure.told(percent) if measure else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=int, default=KEEP)
    parser.add_argument("--seeds", type=int, default=ASKED)
    parser.add_argument("--draws", type=int, default=DRAWS)
    told = parser.parse_args()
    sys.stdout.write(f"{table(told.keep, told.seeds, told.draws)}\n")


if __name__ == "__main__":
    main()
