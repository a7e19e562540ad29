"""What a check is: a subject and options in, what it found out. The same for built-in checks and for a user's own.

Knows no teacher: a check that needs one is given a way to ask.
"""

import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from agents.contract import Finding
from core.errors import StillhouseError
from core.sample import Candidate, Seed, texts_of


class Options(BaseModel):
    """What a recipe may say in the table of a check or of a family: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _NamesFile:
    """Marks the type of an option that names a file."""


FileName = Annotated[str, _NamesFile()]
"""An option that names a file, taken as all files of a recipe are: from its folder, the working directory or the project.
The check gets the absolute path; what is in the file is part of the run's identity.
"""


def files_in(options: Options) -> dict[str, str]:
    """The options that are a `FileName`, or may be one, and are not None."""
    fields = type(options).model_fields.items()
    named = [name for name, field in fields if any(map(_names_file, (*field.metadata, field.annotation)))]
    return {name: value for name in named if (value := getattr(options, name)) is not None}


def _names_file(annotation: Any) -> bool:
    inner = (*getattr(annotation, "__metadata__", ()), *get_args(annotation))
    return isinstance(annotation, _NamesFile) or any(map(_names_file, inner))


class AskTeacher(Protocol):
    async def __call__(
        self, role: str, contract: type[BaseModel], values: Mapping[str, str], *, which: int, temperature: float
    ) -> Any:
        """Ask the verifier's teacher with the prompt of `role`; `which` numbers the questions about one candidate. None
        where no reply ever became the contract.
        """
        ...


class Subject(NamedTuple):
    """What a check may look at: never who wrote the candidate, nor what a critic said of it."""

    seed: Seed
    candidate: Candidate
    ask: AskTeacher

    @property
    def question(self) -> str:
        """All that is said to the assistant, as a student would read it."""
        return "\n\n".join(m.content for m in self.candidate.messages if m.role in ("system", "user"))

    @property
    def values(self) -> dict[str, str]:
        """Seed, fields and answer as texts, by name, for a prompt."""
        return values_of(self.seed, self.candidate)


def values_of(seed: Seed, candidate: Candidate) -> dict[str, str]:
    return {**texts_of(seed.data), "answer": candidate.answer, **texts_of(candidate.fields)}


Found = None | str | Finding | Sequence[Finding]
"""None where nothing is wrong, a fault in words, or findings: one for each thing that was looked at."""
Run = Callable[[Subject, Any], Found | Awaitable[Found]]
O = TypeVar("O", bound=Options)  # noqa: E741


class CheckBroken(StillhouseError):
    """A check raised what it should not: a bug in it, or a seed that it was not made for."""


@dataclass(frozen=True)
class Check:
    """A check by name. `[[verifiers]]` of a recipe name it as their `type`; their other keys are its options."""

    name: str
    run: Run
    options: type[Options] = Options
    calls: Callable[[Any], int] = lambda _options: 0
    """How many questions it puts to a teacher about one candidate at the most, by its options."""
    roles: tuple[str, ...] = ()
    """The prompts that it asks with."""
    lacks: Callable[[], str | None] = lambda: None
    """What this machine lacks for it, in a sentence."""

    @property
    def about(self) -> str:
        """The first paragraph of its docstring, in a line."""
        return " ".join((inspect.getdoc(self.run) or self.name).split("\n\n")[0].split())

    async def findings(self, subject: Subject, options: Options) -> list[Finding]:
        """What it found, as findings under its own name where it gave none.

        Raises:
            CheckBroken: naming the check, the sample and what was raised.
        """
        try:
            found = self.run(subject, options)
            if inspect.isawaitable(found):
                found = await found
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError) as error:
            what = f"{type(error).__name__}: {error}"
            raise CheckBroken(
                f"check {self.name!r} broke on sample {subject.seed.id}{_line_of(error)}: {what}"
            ) from error
        if found is None or isinstance(found, str):
            return [passed(self.name, found, self.about)]
        findings = [found] if isinstance(found, Finding) else found
        if not isinstance(findings, Sequence) or not all(isinstance(one, Finding) for one in findings):
            what = f"it returned {found!r}; it may return None, a fault in words, or findings"
            raise CheckBroken(f"check {self.name!r} broke on sample {subject.seed.id}: {what}")
        return list(findings)


def _line_of(error: BaseException) -> str:
    """Where it was raised, as ` (checks.py, line 12)`."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def check(
    name: str, options: type[Options] = Options, *, calls: Callable[[Any], int] = lambda _options: 0,
    roles: Sequence[str] = (), lacks: Callable[[], str | None] = lambda: None,
) -> Callable[[Run], Check]:  # fmt: skip
    """Make a check of a function of a subject and its options, plain or async. Its docstring says what must hold."""
    return lambda run: Check(name, run, options, calls, tuple(roles), lacks)


def passed(check: str, fault: str | None, met: str) -> Finding:
    """A finding from a fault in words, or None and what was `met`."""
    return Finding(check=check, passed=fault is None, evidence=fault or met)


def first_fault(faults: Sequence[str | None]) -> str | None:
    return next((fault for fault in faults if fault), None)
