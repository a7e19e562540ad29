"""The checks of a recipe as a reward: judges any model's plain answer to a request by code alone. Knows no teacher and no
run. Packages of `stillhouse export-env` import it from `stillhouse`.

Two kinds of requests: those that a seed determines, whose answer must pass the recipe's checks; and those that a generator wrote,
whose answer a check compares with what it knows of the verified sample.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agents.checks.base import Check, Subject
from agents.checks.plain_answers import AnswerForm
from agents.checks.registry import BoundCheck, bind_checks, list_checks
from agents.families import find_family, list_families
from agents.families.base import RecipeFamily
from agents.planning.run_plan import RunPlan
from agents.reply_schema import Finding, InvalidReply
from agents.studies.held_out_evaluation import find_unusable_reply, judge_answer
from core.config.agents import VerifierConfig
from core.errors import RecipeError, UsageError
from core.sample import Candidate, FrozenModel, Message, Seed
from core.thinking import split_thinking


class AnswerTask(FrozenModel):
    """A request with what the checks need to judge an answer to it."""

    id: str
    seed: Seed
    messages: list[Message]
    """The request: at most one system message, and one of the user."""
    candidate: Candidate | None = None
    """The verified sample that the request is from; None if the seed determines the request."""


class AnswerScore(NamedTuple):
    passed: bool
    check: str
    """The check that did not pass, or `cut off`, `no answer` or `contract`; empty if all passed."""
    evidence: str


class ScoringChecks(FrozenModel):
    """What a scorer is built from, as stored next to its tasks."""

    recipe: str
    family: str
    verifiers: list[VerifierConfig]
    attempt: str = ""
    """The check that judges attempts at written requests; empty if seeds determine the requests."""
    hint: str = ""
    """How an answer must be written, as a system message."""


class AnswerScorer:
    """Judges answers by the checks of a recipe, without its teachers."""

    def __init__(self, config: ScoringChecks, folder: Path) -> None:
        """`folder` is where relative names of the checks' files start.

        Raises:
            RecipeError: if a check cannot be used here, with what is missing.
            UnusableExtension: if the family is not installed.
        """
        self.config = config
        self._family: RecipeFamily = find_family(config.family)
        checks, problems = bind_checks(config.verifiers, self._family.checks, folder)
        if problems:
            raise RecipeError(config.recipe, problems)
        self._checks: Sequence[BoundCheck] = checks

    async def score(self, task: AnswerTask, text: str, *, finished: bool = True) -> AnswerScore:
        """Judge an answer. Thinking in tags before it is left out; an answer that is not `finished` does not pass.

        Raises:
            StillhouseError: if a check lacks what it needs on this machine, such as the sandbox.
        """
        answer = split_thinking(text).answer.strip()
        fault = find_unusable_reply(answer, None if finished else "the answer is not complete")
        find = self._run_checks if task.candidate is None else self._judge_attempt
        if fault is None:
            fault = await judge_answer(lambda: find(task, answer))
        return AnswerScore(fault is None, *(fault or ("", "")))

    async def _run_checks(self, task: AnswerTask, answer: str) -> list[Finding]:
        candidate = self._family.build_answered(task.seed, [answer])
        found: list[Finding] = []
        for bound in self._checks:
            found += await bound.check.findings(Subject(task.seed, candidate, _ask_nobody), bound.options)
            if not all(finding.passed for finding in found):
                break
        return found

    async def _judge_attempt(self, task: AnswerTask, answer: str) -> list[Finding]:
        assert task.candidate, "the caller looked"
        bound = next(one for one in self._checks if one.check.name == self.config.attempt)
        judge = bound.check.attempt
        assert judge, "the export chose a check with a judge of attempts"
        assert judge.plain, "and with a form of plain answers"
        try:
            reply = judge.reply.model_validate(judge.plain.read(answer))
        except ValueError as error:
            raise InvalidReply(f"the answer cannot be read: {error}") from None
        subject = Subject(task.seed, task.candidate, _ask_nobody)
        passed = await bound.check.accepts_attempt(subject, reply, bound.options)
        return [
            Finding(check=bound.check.name, passed=passed, evidence="" if passed else "the answer is not the known one")
        ]


def load_answer_scorer(folder: Path) -> AnswerScorer:
    """The checks of an exported package, by the folder of its module. Own checks of the recipe in it are executed.

    Raises:
        RecipeError: if a check lacks a package or a file here.
    """
    return AnswerScorer(ScoringChecks.model_validate_json((folder / "checks.json").read_text(encoding="utf-8")), folder)


def read_answer_tasks(folder: Path, split: Literal["train", "eval"]) -> list[AnswerTask]:
    """The tasks of one split of an exported package."""
    with (folder / "tasks.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [AnswerTask.model_validate(row["task"]) for row in rows if row["split"] == split]


def describe_scoring(plan: RunPlan, *, written: bool) -> ScoringChecks:
    """The checks of a recipe that can judge answers; of requests that a generator wrote, if `written`.

    Raises:
        UsageError: if no check can, or one of them asks a teacher.
    """
    name, family = plan.recipe.name, plan.family.name
    fixed = not written
    if fixed and plan.asking_checks:
        asking = ", ".join(bound.check.name for bound in plan.asking_checks)
        raise UsageError(
            f"{name}: the check {asking} asks a teacher, and a reward is decided by code; leave it out of the recipe"
        )
    if fixed and not plan.checks:
        raise UsageError(f"{name}: has no check, so every answer would get the same reward; add [[verifiers]]")
    usable = [
        (bound, form) for bound in plan.checks if (form := _find_plain_form(bound.check)) and _knows_answer(bound)
    ]
    if written and not usable:
        judging = [check.name for check in _list_known_checks() if _find_plain_form(check)]
        by_seed = [one.name for one in list_families() if one.asks_by_seed]
        raise UsageError(
            f"{name}: no check of the family {family} can decide by code whether an answer is right; those that can are "
            f"{', '.join(judging)}, and all checks of the families whose seeds ask, {', '.join(by_seed)}"
        )
    chosen = usable[0] if written else None
    return ScoringChecks(
        recipe=name,
        family=family,
        verifiers=[chosen[0].config] if chosen else [bound.config for bound in plan.checks],
        attempt=chosen[0].check.name if chosen else "",
        hint=chosen[1].hint if chosen else plan.family.answer_hint,
    )


def _find_plain_form(check: Check) -> AnswerForm | None:
    """How the check reads a plain answer; None if it cannot judge one."""
    return check.attempt.plain if check.attempt else None


def _list_known_checks() -> list[Check]:
    """Those of every family and of each, once by name."""
    checks = [*list_checks(), *(check for family in list_families() for check in family.checks)]
    return list({check.name: check for check in checks}.values())


def _knows_answer(bound: BoundCheck) -> bool:
    return bound.check.attempt is not None and bound.check.attempt.usable(bound.options)


async def _ask_nobody(*_: Any, **__: Any) -> Any:
    raise UsageError("a check asks a teacher, and none is asked for a reward")
