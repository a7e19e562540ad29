"""An ablation of a run: declare, measure every arm, compare. The result is written after each model."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median
from typing import NamedTuple

from core.config.recipe import list_differences
from core.intervals import IntervalEstimate
from core.storage.atomic_files import read_record, write_text
from core.storage.file_locks import hold_lock
from flows.terminal.console import CommandSession
from flows.terminal.text_format import format_percent
from plugins.ablation.answers import Answers
from plugins.ablation.arms import ARMS, STEPS
from plugins.ablation.config import locate_result
from plugins.ablation.results import Ablation, AnsweredRequests, ArmSummary, Declaration, StepGain
from plugins.ablation.statistics import estimate_gain, estimate_pass_rate
from plugins.ablation.task import BARE_TEACHER, FIRST_SEED, AblationTask

DECLARATION_FILE = "declared.json"
FEW_ROWS = 45
"""With 40 rows, no interval of this project's trials separated verified from unverified rows."""


def run_ablation(task: AblationTask, session: CommandSession) -> Ablation:
    """Measure what is not measured yet, and write `ablation.json` after each model. The first call writes the declaration.

    Raises:
        RunInUse: if another process works on this ablation.
        RunStopped, UserInterrupt, BudgetExhausted, StillhouseError: with everything measured so far stored.
    """
    with hold_lock(task.folder / "lock", f"{task.run.name}: another process works on its ablation"):
        departures = _declare(task)
        session.print_unless_stopped(task.describe())
        answers = Answers(task, session)
        for name in task.models:
            answers.measure_model(name)
            _write_result(task, answers, departures)
        trainings = list(task.list_trainings())
        for number, training in enumerate(trainings, 1):
            session.print_unless_stopped(f"ablate: {number} of {len(trainings)}: {training.label}")
            answers.measure_training(training)
            _write_result(task, answers, departures)
        answers.remove_students()  # of a call that was killed between an answer and the end
        return _write_result(task, answers, departures)


def _declare(task: AblationTask) -> list[str]:
    """Write the declaration, or name what differs from the one that is there."""
    file = task.folder / DECLARATION_FILE
    if not file.is_file():
        task.folder.mkdir(parents=True, exist_ok=True)
        write_text(file, task.declared.model_dump_json(indent=2) + "\n")
        return []
    before = read_record(file, Declaration)
    there, here = (one.model_dump(mode="json", exclude={"detectable"}) for one in (before, task.declared))
    return list(map(str, list_differences(there, here)))


class _Measured(NamedTuple):
    """An arm at one size: the answers of each of its seeds so far, and their digests."""

    arm: str
    size: str
    digests: tuple[str, ...]
    answers: list[AnsweredRequests]

    def collect(self, read: Callable[[AnsweredRequests], list[bool]]) -> list[list[bool]]:
        return [read(one) for one in self.answers]


def _write_result(task: AblationTask, answers: Answers, departures: list[str]) -> Ablation:
    measured = collect_measured(task, answers)
    trainings = {task.digest_training(one) for one in task.list_trainings()}
    models = [*task.models, *(["i"] if "i" in task.declared.arms else [])]
    found = Ablation(
        declared=read_record(task.folder / DECLARATION_FILE, Declaration),
        departures=departures,
        arms=[_summarize_arm(one, task) for one in measured.values()],
        steps=list(list_step_gains(measured, task)),
        notes=list(_list_notes(task)),
        complete=all(map(answers.find, [*trainings, *map(task.digest_model, models)])),
    )
    write_text(locate_result(task.run), found.model_dump_json(indent=2) + "\n")
    return found


def collect_measured(task: AblationTask, answers: Answers) -> dict[tuple[str, str], _Measured]:
    """Arms with at least one answer, by letter and size; arms that are not trained have the size ""."""
    measured: dict[tuple[str, str], _Measured] = {}
    for name in (BARE_TEACHER, "h", "i"):
        digest = task.digest_model(name)
        if (name in task.declared.arms or name == BARE_TEACHER) and (answered := answers.find(digest)):
            measured[name, ""] = _Measured(name, "", (digest,), [answered])
    for training in task.list_trainings():
        digest, drawn = task.digest_training(training), training.drawn
        if answered := answers.find(digest):
            place = training.letter, training.size
            before = measured.get(place, _Measured(*place, (), []))
            # Arms with the same rows share answers, and their rows may still have cost different tokens.
            paid = answered.model_copy(update={"rows": len(drawn.rows), "teacher_tokens": drawn.tokens})
            measured[place] = _Measured(*place, (*before.digests, digest), [*before.answers, paid])
    return measured


def _summarize_arm(one: _Measured, task: AblationTask) -> ArmSummary:
    passed = estimate_pass_rate(one.collect(lambda answers: answers.passed))
    assert passed is not None, "an arm is listed with its first answers"
    held_out = one.collect(lambda answers: join_checks(answers, task.declared.held_out_checks))
    return ArmSummary(
        arm=one.arm,
        size=one.size,
        rows=one.answers[0].rows,
        seeds=len(one.answers),
        passed=passed,
        by_check={
            name: fmean(fmean(answers.by_check[name]) for answers in one.answers) for name in one.answers[0].by_check
        },
        held_out=fmean(map(fmean, held_out)) if task.declared.held_out_checks else None,
        panel=fmean(fmean(answers.panel) for answers in one.answers) if one.answers[0].panel else None,
        words=float(median(count for answers in one.answers for count in answers.words)),
        teacher_tokens=round(fmean(answers.teacher_tokens for answers in one.answers)),
        seconds=fmean(answers.seconds for answers in one.answers),
    )


def join_checks(answers: AnsweredRequests, names: Sequence[str]) -> list[bool]:
    """Whether each answer passes all of these checks."""
    return [all(outcome) for outcome in zip(*(answers.by_check[name] for name in names), strict=True)] if names else []


def list_step_gains(measured: dict[tuple[str, str], _Measured], task: AblationTask) -> Iterator[StepGain]:
    for size in task.declared.sizes:
        for step, first, second in STEPS:
            ours = measured.get((first, size))
            other = measured.get((second, size if ARMS[second].trains else ""))
            if ours and other:
                yield _compare_arms(step, size, ours, other, task)


def _compare_arms(step: str, size: str, ours: _Measured, other: _Measured, task: AblationTask) -> StepGain:
    seeds = min(len(ours.answers), len(other.answers)) if other.size else len(ours.answers)
    left, right = ours._replace(answers=ours.answers[:seeds]), other._replace(answers=other.answers[:seeds])

    def compare(read: Callable[[AnsweredRequests], list[bool]]) -> IntervalEstimate | None:
        return estimate_gain(left.collect(read), right.collect(read))

    gain = compare(lambda answers: answers.passed)
    assert gain is not None, "there is a request"
    checks = left.answers[0].by_check
    by_check = {name: compare(lambda answers, name=name: answers.by_check[name]) for name in checks}  # type: ignore[misc]
    names = task.declared.held_out_checks
    return StepGain(
        step=step,
        size=size,
        arm=ours.arm,
        other=other.arm,
        gain=gain,
        by_check={name: found.value for name, found in by_check.items() if found},
        held_out=compare(lambda answers: join_checks(answers, names)) if names else None,
        panel=compare(lambda answers: answers.panel) if left.answers[0].panel and right.answers[0].panel else None,
        same_rows=bool(other.size) and left.digests[:seeds] == right.digests[:seeds],
    )


def _list_notes(task: AblationTask) -> Iterator[str]:
    for size in task.declared.sizes if "g" in task.declared.arms else ():
        dataset, drafts = (task.draw(letter, size, FIRST_SEED) for letter in "dg")
        if drafts.tokens < 0.95 * dataset.tokens:
            share = format_percent(drafts.tokens / dataset.tokens)
            yield (
                f"g: all {len(drafts.rows):,} first drafts of the run cost {share} of the teacher tokens of "
                f"{len(dataset.rows):,} rows of the dataset, and there are no more"
            )
    if task.equal < FEW_ROWS and "equal" in task.declared.sizes and task.trains:
        yield f"{task.equal} rows in each arm are few: with 40 rows, our trials could not tell verified from unverified ones"
