"""A check: a subject and options in, findings out. Built-in checks and a user's own checks have the same form. Also the votes
of a teacher that is asked the same several times.

Knows no teacher: a check that needs a teacher gets a function that asks it.
"""

import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.checks.plain_answers import AnswerForm
from agents.reply_schema import Finding
from core.config.base import check_repeats
from core.errors import StillhouseError
from core.sample import CHECK_BROKE, Candidate, Seed, render_values
from core.stop_signal import RunStopped
from teachers.base import CallFailed

MAX_EVIDENCE_CHARACTERS = 2_000
"""Characters of a finding."""
HINT = "for the critic to judge: "
"""Begins the evidence of a finding that the critic receives."""


class Options(BaseModel):
    """The keys that a recipe may set in the table of a check or of a family. Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AskTeacher(Protocol):
    async def __call__(
        self, role: str, contract: type[BaseModel], values: Mapping[str, str], *, which: int, temperature: float,
        top_logprobs: int = 0, images: Sequence[str] = (),
    ) -> Any:  # fmt: skip
        """Ask the verifier's teacher with the prompt of `role`, whose last message shows the `images`; `which` numbers the
        questions about one candidate. None if no reply could be parsed. With `top_logprobs`, `get_reply_tokens` has the reply's
        tokens, if the teacher returns them.
        """
        ...


async def refuse_to_ask(*_: object, **__: object) -> None:
    """For checks that ask no teacher."""
    raise AssertionError("this check asks no teacher")


class Subject(NamedTuple):
    """Everything that a check may see. The writer of the candidate and the critic's reviews are not included."""

    seed: Seed
    candidate: Candidate
    ask: AskTeacher

    @property
    def question(self) -> str:
        """All messages to the assistant, as a student would read them."""
        return "\n\n".join(m.content for m in self.candidate.messages if m.role in ("system", "user"))

    @property
    def values(self) -> dict[str, str]:
        """Seed, fields and answer as texts, by name, for a prompt."""
        return subject_values(self.seed, self.candidate)


def subject_values(seed: Seed, candidate: Candidate) -> dict[str, str]:
    return {**render_values(seed.data), "answer": candidate.answer, **render_values(candidate.fields)}


CheckResult = None | str | Finding | Sequence[Finding]
"""None if nothing is wrong, a fault in words, or findings, one for each aspect."""
CheckFunction = Callable[[Subject, Any], CheckResult | Awaitable[CheckResult]]
O = TypeVar("O", bound=Options)  # noqa: E741


class CheckBroken(Exception):
    """A check raised an unexpected exception: because of a bug, an unsuitable seed or an unforeseen reply. The sample is
    lost, never the run: the reply is in the ledger, so the same exception would end each resumption too.
    """

    def __init__(self, check: str, what: str) -> None:
        super().__init__(valid_text(f"{CHECK_BROKE}{check!r} broke{what}"))
        self.check = check
        self.evidence = valid_text(f"check broke{what}")


def valid_text(text: str) -> str:
    """`text` as valid UTF-8, truncated: it is stored and may be inserted into a prompt as advice."""
    return text.encode("utf-8", "replace").decode()[:MAX_EVIDENCE_CHARACTERS]


def _ask_question(subject: Subject, _options: Any) -> dict[str, str]:
    return {"question": subject.question}


@dataclass(frozen=True)
class AttemptJudge:
    """How a check judges an attempt: the reply of a solver who sees the question and not the candidate's answer."""

    reply: type[BaseModel]
    """The type of the solver's reply."""
    accepts: Callable[[Subject, Any, Any], bool | Awaitable[bool]]
    """Whether a reply passes, given the verified candidate, the reply and the check's options."""
    values: Callable[[Subject, Any], Mapping[str, str]] = _ask_question
    """The values of the solver's prompt, in addition to the seed's data."""
    role: str = "verifier"
    """The name of the solver's prompt."""
    usable: Callable[[Any], bool] = lambda _options: True
    """Whether a check with these options knows the right answer."""
    plain: AnswerForm | None = None
    """How any model's plain answer is read as the solver's reply; None if it cannot be."""


@dataclass(frozen=True)
class Check:
    """A check by name. `[[verifiers]]` of a recipe name it as their `type`; their other keys are its options."""

    name: str
    run: CheckFunction
    options: type[Options] = Options
    calls: Callable[[Any], int] = lambda _options: 0
    """The maximum number of teacher calls for one candidate, given its options."""
    roles: tuple[str, ...] = ()
    """Names of the prompts of those calls."""
    lacks: Callable[[], str | None] = lambda: None
    """What this machine lacks for the check, in a sentence."""
    reads_logprobs: Callable[[Any], bool] = lambda _options: False
    """Whether it needs token probabilities of the verifier's teacher, given its options."""
    attempt: AttemptJudge | None = None
    """How it judges an attempt at the candidate's question, if it can."""
    hint: bool = False
    """Whether its faults refuse nothing where the critic is a teacher, which receives them and judges better."""
    early: bool = False
    """Whether it comes before the critic although it asks a teacher, since the critic receives evidence of it (`HINT`)."""
    languages: tuple[str, ...] = ()
    """The languages that it can judge (ISO 639-1). Empty: all."""

    @property
    def about(self) -> str:
        """The first paragraph of the check's docstring, in a line. It is the evidence of a candidate that passes."""
        return " ".join((inspect.getdoc(self.run) or self.name).split("\n\n")[0].split())

    async def findings(self, subject: Subject, options: Options) -> list[Finding]:
        """The findings of the check, under its own name where it returns None or a fault.

        Raises:
            CheckBroken: with the check, its line and the exception.
            CallFailed, RunStopped, StillhouseError: as raised by a teacher call, or if no sandbox is available.
        """
        try:
            result = self.run(subject, options)
            if inspect.isawaitable(result):
                result = await result
        except (CallFailed, RunStopped, StillhouseError):
            raise
        except (Exception, SystemExit) as error:
            raise self._build_broken(error) from error
        if result is None or isinstance(result, str):
            result = build_finding(self.name, result, self.about)
        findings = [result] if isinstance(result, Finding) else result
        if not isinstance(findings, Sequence) or not all(isinstance(finding, Finding) for finding in findings):
            raise CheckBroken(self.name, f": it returned {result!r}; it may return None, a fault in words, or findings")
        return [finding.model_copy(update={"evidence": valid_text(finding.evidence)}) for finding in findings]

    async def accepts_attempt(self, subject: Subject, reply: BaseModel, options: Options) -> bool:
        """Whether an attempt at the candidate's question passes.

        Raises:
            CheckBroken, StillhouseError: as `findings`.
        """
        assert self.attempt, "the plan only chooses a check with a judge of attempts"
        try:
            result = self.attempt.accepts(subject, reply, options)
            return await result if inspect.isawaitable(result) else bool(result)
        except (RunStopped, StillhouseError):
            raise
        except (Exception, SystemExit) as error:
            raise self._build_broken(error) from error

    def _build_broken(self, error: BaseException) -> CheckBroken:
        """The exception with the innermost line of the check's own file that led to it, else the line that raised it."""
        frames = traceback.extract_tb(error.__traceback__)
        code = getattr(inspect.unwrap(self.run), "__code__", None)
        own = [frame for frame in frames if code and frame.filename == code.co_filename] or frames
        location = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        return CheckBroken(self.name, f"{location}: {type(error).__name__}: {error}")


def check(
    name: str, options: type[Options] = Options, *, calls: Callable[[Any], int] = lambda _options: 0,
    roles: Sequence[str] = (), lacks: Callable[[], str | None] = lambda: None,
    reads_logprobs: Callable[[Any], bool] = lambda _options: False, attempt: AttemptJudge | None = None, hint: bool = False,
    early: bool = False, languages: tuple[str, ...] = (),
) -> Callable[[CheckFunction], Check]:  # fmt: skip
    """Turn a function of a subject and options, plain or async, into a check. Its docstring states the requirement."""
    return lambda f: Check(name, f, options, calls, (*roles,), lacks, reads_logprobs, attempt, hint, early, languages)


def build_finding(check: str, fault: str | None, met: str) -> Finding:
    """A finding: failed with `fault` as evidence, or passed with `met` as evidence if `fault` is None."""
    return Finding(check=check, passed=fault is None, evidence=fault or met)


def first_fault(faults: Sequence[str | None]) -> str | None:
    return next((fault for fault in faults if fault), None)


class Votes(Options):
    votes: int = Field(1, ge=1, le=15)
    """Questions to the teacher about one candidate."""
    agree: int | None = Field(None, ge=1, le=15)
    """Votes that decide. Default: more than half."""
    temperature: float = Field(0.7, ge=0, le=2)

    @model_validator(mode="after")
    def _can_agree(self) -> Self:
        if self.needed > self.votes:
            raise ValueError(f"agree = {self.agree} of votes = {self.votes} cannot be; lower agree")
        check_repeats("votes", self.votes, self.temperature)
        return self

    @property
    def needed(self) -> int:
        return self.agree or self.votes // 2 + 1


class VoteCount(NamedTuple):
    replies: Sequence[Any]
    """None for each reply that cannot be read."""
    agreeing: int
    enough: bool

    @property
    def given(self) -> list[Any]:
        return [reply for reply in self.replies if reply is not None]


async def ask_votes(
    subject: Subject, options: Votes, role: str, reply_type: type[BaseModel], values: Mapping[str, str],
    agrees: Callable[[Any], bool | Awaitable[bool]], *, start: int = 0, images: Sequence[str] = (),
) -> VoteCount:  # fmt: skip
    """Ask `options.votes` times, and count the replies that agree; one that cannot be read does not. `start` numbers the first
    question, where a check asks several kinds of questions in one role.
    """
    shown: dict[str, Any] = {"images": images} if images else {}
    replies = [
        await subject.ask(role, reply_type, values, which=start + i, temperature=options.temperature, **shown)
        for i in range(options.votes)
    ]
    agreeing = 0
    for reply in replies:
        if reply is not None:
            same = agrees(reply)
            agreeing += same if isinstance(same, bool) else await same
    return VoteCount(replies, agreeing, agreeing >= options.needed)
