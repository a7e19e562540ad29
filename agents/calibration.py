"""How often the judges of a run are right: each is asked about answers that people labelled, before anything is made.

A judge is asked as it is in the run: the same prompt, teacher, orders and votes. Knows neither Prefect nor the report.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from agents.brake import Brake, Stopped
from agents.budget import Budget
from agents.checks.base import Subject
from agents.checks.judge import JudgeOptions, Labelled, Ruling, read_labelled, ruling_on
from agents.checks.registry import Bound
from agents.crew import DeskCrew
from agents.desk import open_desk
from agents.ledger import Ledger
from agents.plan import Plan
from agents.produce import together
from agents.teachers.base import CallFailed
from core.errors import ProviderError, StillhouseError
from core.run import JudgeRecord, Measured, RunDir
from core.sample import Seed, Turn
from core.shares import wilson
from core.store import write_text

CONFIDENT = 1.96
"""Standard errors of a 95 % interval."""
VERIFYING = ("centralized", "independent")
"""The topologies with a verifier in them."""


class Judge(NamedTuple):
    """A judge of a plan, and the number of its first question about a candidate."""

    bound: Bound
    options: JudgeOptions
    first: int


class Judged(NamedTuple):
    row: Labelled
    ruling: Ruling


def judges_of(plan: Plan) -> list[Judge]:
    """In the order of the recipe; a topology that checks nothing uses none."""
    return list(_judges(plan)) if plan.recipe.topology.kind in VERIFYING else []


def _judges(plan: Plan) -> Iterator[Judge]:
    first = 0
    for bound in plan.checks:
        if isinstance(bound.options, JudgeOptions):
            yield Judge(bound, bound.options, first)
        first += bound.check.calls(bound.options)


async def measure_judges(plan: Plan, run: RunDir, brake: Brake) -> list[JudgeRecord]:
    """A record for each judge of the plan. Its answers are in a ledger of the run, and paid for out of the run's budget.

    What each judge said of each labelled answer is written to the run's `calibration.jsonl`.

    Raises:
        Stopped: if the user or the budget stops it; it goes on when it is called again.
        ProviderError: if a labelled answer was not judged.
        StillhouseError: as `Crew.ask`.
    """
    judges = judges_of(plan)
    if not any(judge.options.calibration for judge in judges):
        return [record_of(plan, judge, None) for judge in judges]
    alone = _asking_only_the_verifiers_teacher(plan)
    questions = max(judge.bound.check.calls(judge.options) for judge in judges)
    longest_way = questions * (1 + plan.recipe.agents.verifier.max_repairs)
    with (
        Budget(plan.recipe.budget, run.spend_file, longest_way) as budget,
        Ledger(run.calibration_ledger) as ledger,
    ):
        async with open_desk(alone, budget, brake, run.path, run.cache) as desk:
            crew = DeskCrew(alone, desk, ledger)
            judged = [await calibrate(crew, judge) if judge.options.calibration else None for judge in judges]
    write_text(run.calibration_file, "".join(_lines(judges, judged)))
    return [record_of(plan, judge, found) for judge, found in zip(judges, judged, strict=True)]


def _asking_only_the_verifiers_teacher(plan: Plan) -> Plan:
    """The same plan, so that no other teacher is started for it."""
    agents = plan.recipe.agents
    writer = agents.generator.model_copy(update={"teacher": agents.verifier.teacher})
    alone = agents.model_copy(update={"generator": writer, "critic": None})
    return replace(plan, recipe=plan.recipe.model_copy(update={"agents": alone}))


async def calibrate(crew: DeskCrew, judge: Judge) -> list[Judged]:
    """What the judge says of each of its labelled answers, many at once, in the order of the file.

    Raises:
        UsageError, Stopped, StillhouseError: as `read_labelled` and `measure_judges`, once what was under way has ended.
    """
    assert judge.options.calibration is not None
    path = Path(judge.options.calibration)
    rows = read_labelled(path)
    waiting = iter(enumerate(rows))
    judged: dict[int, Judged] = {}
    brake = crew.desk.brake

    async def work() -> None:
        for index, row in waiting:
            try:
                async with crew.desk.sample(index):
                    judged[index] = Judged(row, await _rule(crew, judge, index, row))
                    await crew.ledger.sync()
            except Stopped as stopped:
                brake.hold(stopped)
                return
            except CallFailed as failed:
                brake.hold(_unanswered(path, row, failed))
            except StillhouseError as error:
                brake.pull(error)

    await together(work() for _ in range(min(len(rows), crew.desk.floor.most)))
    if brake.reason or len(judged) < len(rows):
        raise brake.reason or Stopped
    return [judged[index] for index in range(len(rows))]


def _unanswered(path: Path, row: Labelled, failed: CallFailed) -> ProviderError:
    return ProviderError(
        f"the judge got no answer about the labelled answer {path}:{row.line}: {failed}; --resume asks again; "
        "if it cannot be answered, take the line out"
    )


async def _rule(crew: DeskCrew, judge: Judge, index: int, row: Labelled) -> Ruling:
    turns: list[Turn] = []

    async def ask(role: str, contract: Any, values: Any, *, which: int, temperature: float) -> Any:
        return await crew.solve(index, 0, turns, role, contract, values, judge.first + which, temperature)

    seed = Seed(id=f"calibration-{index:06d}", data={})
    return await ruling_on(Subject(seed, row.candidate, ask), judge.options)


def _lines(judges: Sequence[Judge], judged: Sequence[list[Judged] | None]) -> Iterator[str]:
    for number, (judge, found) in enumerate(zip(judges, judged, strict=True)):
        for one in found or ():
            told = {
                "judge": number, "file": judge.bound.asked.options["calibration"], "line": one.row.line,
                "good": one.row.good, "says": one.ruling.says, "evidence": one.ruling.evidence,
            }  # fmt: skip
            yield json.dumps(told, ensure_ascii=False) + "\n"


def record_of(plan: Plan, judge: Judge, judged: Sequence[Judged] | None) -> JudgeRecord:
    return JudgeRecord(
        teacher=plan.recipe.teachers[plan.recipe.agents.verifier.teacher].model,
        rubric=judge.options.rubric,
        min_accuracy=judge.options.min_accuracy,
        measured=None if judged is None else measured(judge.bound.asked.options["calibration"], judged),
    )


def measured(file: str, judged: Sequence[Judged]) -> Measured:
    """How the rulings compare with the labels. Whatever does not pass counts as a verdict of poor, as it does in a run."""
    passes = {good: [one.ruling.says == "good" for one in judged if one.row.good is good] for good in (True, False)}
    good, poor = passes[True], passes[False]
    right, all_rows = sum(good) + len(poor) - sum(poor), len(judged)
    apart = difference(sum(good), len(good), sum(poor), len(poor))
    return Measured(
        file=file,
        answers=all_rows,
        right=right,
        accuracy=right / all_rows,
        accuracy_low=wilson(right, all_rows, -CONFIDENT),
        accuracy_high=wilson(right, all_rows, CONFIDENT),
        sensitivity=sum(good) / len(good),
        specificity=1 - sum(poor) / len(poor),
        youden=apart.value,
        youden_low=apart.low,
        youden_high=apart.high,
        inconsistent=sum(one.ruling.says == "inconsistent" for one in judged) / all_rows,
        undecided=sum(one.ruling.says == "undecided" for one in judged) / all_rows,
    )


class Interval(NamedTuple):
    value: float
    low: float
    high: float


def difference(hits: int, tries: int, other_hits: int, other_tries: int) -> Interval:
    """How much larger one share is than another, with its 95 % interval (Newcombe 1998, method 10: from both Wilson
    intervals). Of good answers that pass and poor ones that pass it is Youden's J (1950): 0 is chance, whatever the shares.
    """
    (p, low, high), (q, other_low, other_high) = (_share(hits, tries), _share(other_hits, other_tries))
    below = math.hypot(p - low, other_high - q)
    above = math.hypot(high - p, q - other_low)
    return Interval(p - q, p - q - below, p - q + above)


def _share(hits: int, tries: int) -> Interval:
    return Interval(hits / tries, wilson(hits, tries, -CONFIDENT), wilson(hits, tries, CONFIDENT))


def refusal(records: Sequence[JudgeRecord]) -> str | None:
    """Why a run must not use its judges, in a sentence: one is certainly less often right than it must be."""
    for record in records:
        m = record.measured
        if m and m.accuracy_high < record.min_accuracy:
            return (
                f"the judge {record.teacher} is right on {m.right} of {m.answers} labelled answers ({m.file}), "
                f"{m.accuracy:.0%} with a 95 % interval of {m.accuracy_low:.0%} to {m.accuracy_high:.0%}, under "
                f"min_accuracy = {record.min_accuracy:g}; name a more capable teacher in agents.verifier, a clearer rubric, "
                "or take the check out (calibration.jsonl in the run's folder tells what it said)"
            )
    return None
