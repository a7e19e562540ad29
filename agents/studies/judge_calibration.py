"""Judge calibration: the accuracy of a run's judges on answers that people labeled, measured before the first sample.

A judge is called as in the run: same prompt, teacher, orders and votes. Knows neither Prefect nor the report.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agents.calls.agent_context import LocalAgentContext
from agents.calls.budget import RunBudget
from agents.calls.call_ledger import CallLedger
from agents.calls.dispatcher import open_dispatcher
from agents.checks.base import Subject
from agents.checks.judge import JudgeOptions, JudgeRuling, LabeledAnswer, ask_for_ruling, read_labeled_answers
from agents.checks.registry import BoundCheck
from agents.planning.run_plan import RunPlan
from agents.topologies.sample_production import run_concurrently
from core.errors import ProviderError, StillhouseError
from core.intervals import IntervalEstimate, estimate_share
from core.runs.records import JudgeAccuracy, JudgeRecord
from core.runs.run_dir import RunDir
from core.sample import AgentTurn, Seed
from core.stop_signal import RunStopped, StopSignal
from core.storage.atomic_files import write_text
from teachers.base import CallFailed

CHECKING_TOPOLOGIES = ("centralized", "independent")
"""The topologies with a verifier."""


class BoundJudge(NamedTuple):
    """A judge of a plan, and the number of its first question about a candidate."""

    bound: BoundCheck
    options: JudgeOptions
    first: int


class JudgedAnswer(NamedTuple):
    """A labeled answer, and the judge's ruling."""

    row: LabeledAnswer
    ruling: JudgeRuling


def find_judges(plan: RunPlan) -> list[BoundJudge]:
    """The judges of a plan, in the order of the recipe; none in a topology without a verifier."""
    if plan.recipe.topology.kind not in CHECKING_TOPOLOGIES:
        return []
    judges, first = [], 0
    for bound in plan.checks:
        if isinstance(bound.options, JudgeOptions):
            judges.append(BoundJudge(bound, bound.options, first))
        first += bound.check.calls(bound.options)
    return judges


async def measure_judges(plan: RunPlan, run: RunDir, stop_signal: StopSignal) -> list[JudgeRecord]:
    """A record for each judge of the plan.

    The run's budget pays for the calls, and a ledger in the run's folder stores the replies. The ruling of each judge on each
    labeled answer is written to the run's `calibration.jsonl`.

    Raises:
        RunStopped: if the user or the budget stops the measurement; the next call resumes it.
        ProviderError: if a labeled answer was not judged.
        StillhouseError: as `AgentContext.ask`.
    """
    judges = find_judges(plan)
    if not any(judge.options.calibration for judge in judges):
        return [build_judge_record(plan, judge, None) for judge in judges]
    verifier_plan = plan.with_generator(plan.recipe.agents.verifier.teacher)  # so that no other teacher is started
    questions = max(judge.bound.check.calls(judge.options) for judge in judges)
    max_calls = questions * (1 + plan.recipe.agents.verifier.max_repairs)
    with (
        RunBudget(plan.recipe.budget, run.spend_file, max_calls) as budget,
        CallLedger(run.calibration_ledger) as ledger,
    ):
        async with open_dispatcher(verifier_plan, budget, stop_signal, run.path, run.cache) as dispatcher:
            context = LocalAgentContext(verifier_plan, dispatcher, ledger)
            judged = [await calibrate_judge(context, judge) if judge.options.calibration else None for judge in judges]
    lines = []
    for number, (judge, answers) in enumerate(zip(judges, judged, strict=True)):
        for answer in answers or ():
            record = {
                "judge": number, "file": judge.bound.config.options["calibration"], "line": answer.row.line,
                "good": answer.row.good, "says": answer.ruling.says, "evidence": answer.ruling.evidence,
            }  # fmt: skip
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(run.calibration_file, "".join(lines))
    return [build_judge_record(plan, judge, answers) for judge, answers in zip(judges, judged, strict=True)]


async def calibrate_judge(context: LocalAgentContext, judge: BoundJudge) -> list[JudgedAnswer]:
    """The judge's rulings on its labeled answers, many at once, in the order of the file.

    Raises:
        UsageError, RunStopped, StillhouseError: as `read_labeled_answers` and `measure_judges`, after the open calls have ended.
    """
    assert judge.options.calibration is not None
    path = Path(judge.options.calibration)
    rows = read_labeled_answers(path)
    waiting = iter(enumerate(rows))
    judged: dict[int, JudgedAnswer] = {}
    stop_signal = context.dispatcher.stop_signal

    async def work() -> None:
        for index, row in waiting:
            try:
                async with context.dispatcher.admit_sample(index):
                    judged[index] = JudgedAnswer(row, await _ask_judge(context, judge, index, row))
                    await context.ledger.sync()
            except RunStopped as stopped:
                stop_signal.stop_samples(stopped)
                return
            except CallFailed as failed:
                message = f"the judge got no answer about the labeled answer {path}:{row.line}: {failed}; --resume asks again; "
                stop_signal.stop_samples(ProviderError(f"{message}if it cannot be answered, take the line out"))
            except StillhouseError as error:
                stop_signal.stop_calls(error)

    await run_concurrently(work() for _ in range(min(len(rows), context.dispatcher.sample_slots.max_concurrent)))
    if stop_signal.reason or len(judged) < len(rows):
        raise stop_signal.reason or RunStopped
    return [judged[index] for index in range(len(rows))]


async def _ask_judge(context: LocalAgentContext, judge: BoundJudge, index: int, row: LabeledAnswer) -> JudgeRuling:
    turns: list[AgentTurn] = []
    seed = Seed(id=f"calibration-{index:06d}", data={})

    async def ask(
        role: str, contract: Any, values: Any, *, which: int, temperature: float, top_logprobs: int = 0,
        images: Sequence[str] = (),
    ) -> Any:  # fmt: skip
        return await context.ask_verifier(seed, 0, turns, role, contract, values, judge.first + which, temperature)

    return await ask_for_ruling(Subject(seed, row.candidate, ask), judge.options)


def build_judge_record(plan: RunPlan, judge: BoundJudge, judged: Sequence[JudgedAnswer] | None) -> JudgeRecord:
    return JudgeRecord(
        teacher=plan.recipe.teachers[plan.recipe.agents.verifier.teacher].model,
        rubric=judge.options.rubric,
        min_accuracy=judge.options.min_accuracy,
        measured=None if judged is None else _measure_accuracy(judge.bound.config.options["calibration"], judged),
    )


def _measure_accuracy(file: str, judged: Sequence[JudgedAnswer]) -> JudgeAccuracy:
    """The rulings compared with the labels. Every ruling but good counts as poor, as in a run."""
    passes = {
        good: [answer.ruling.says == "good" for answer in judged if answer.row.good is good] for good in (True, False)
    }
    good, poor = passes[True], passes[False]
    right, all_rows = sum(good) + len(poor) - sum(poor), len(judged)
    accuracy = estimate_share(right, all_rows)
    assert accuracy, "there is a labeled answer"
    youden = share_difference(sum(good), len(good), sum(poor), len(poor))
    return JudgeAccuracy(
        file=file,
        answers=all_rows,
        right=right,
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        sensitivity=sum(good) / len(good),
        specificity=1 - sum(poor) / len(poor),
        youden=youden.value,
        youden_low=youden.low,
        youden_high=youden.high,
        inconsistent=sum(answer.ruling.says == "inconsistent" for answer in judged) / all_rows,
        undecided=sum(answer.ruling.says == "undecided" for answer in judged) / all_rows,
    )


def share_difference(hits: int, tries: int, other_hits: int, other_tries: int) -> IntervalEstimate:
    """The difference of two shares with its 95 % interval (Newcombe 1998, method 10: from both Wilson intervals).

    For the pass rates of good and of poor answers it is Youden's J (1950): 0 is chance, independent of the shares.
    """
    one, other = estimate_share(hits, tries), estimate_share(other_hits, other_tries)
    assert one, "good answers were judged"
    assert other, "and poor ones"
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return IntervalEstimate(value=value, low=value - below, high=value + above)


def judge_refusal(records: Sequence[JudgeRecord]) -> str | None:
    """Why a run must not use its judges: the accuracy of a judge is certainly below its minimum. None if all may be used."""
    for record in records:
        m = record.measured
        if m and m.accuracy_high < record.min_accuracy:
            return (
                f"the judge {record.teacher} is right on {m.right} of {m.answers} labeled answers ({m.file}), "
                f"{m.accuracy:.0%} with a 95 % interval of {m.accuracy_low:.0%} to {m.accuracy_high:.0%}, under "
                f"min_accuracy = {record.min_accuracy:g}; name a more capable teacher in agents.verifier, a clearer rubric, "
                "or take the check out (calibration.jsonl in the run's folder has its rulings)"
            )
    return None
