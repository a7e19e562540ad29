"""Golden cases from their files, and the verdict of a check on a case. A case has the verdict of a careful reader of the rule;
if code cannot give it, `limit` has the reason, and the case has the verdict of the check instead.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agents.checks import Check, Finding, Subject
from core.sample import Candidate, Message, Seed

Case = dict[str, Any]
Ask = Callable[..., Any]
Each = TypeVar("Each")


def check_each(cases: Iterable[Each]) -> Callable[[Callable[[Each], None]], Callable[[], None]]:
    """One test of all cases, which fails with every case that does not hold: a test of each would cost more than its case."""

    def decorate(check: Callable[[Each], None]) -> Callable[[], None]:
        def check_all() -> None:
            wrong, every = [], list(cases)
            assert every, "no case"
            for case in every:
                try:
                    check(case)
                except (Exception, pytest.fail.Exception) as error:
                    wrong.append(f"{case}: {type(error).__name__}: {error}")
            assert not wrong, "\n".join(wrong)

        check_all.__name__, check_all.__doc__ = check.__name__, check.__doc__
        return check_all

    return decorate


GOLDEN = Path(__file__).parent / "golden"


def rows_of(name: str, folder: Path = GOLDEN) -> list[Case]:
    """The cases of a file. Long texts are pieces with their repetitions; numbers that JSON lacks are texts."""
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line, object_hook=_whole) for line in lines if line]


def _whole(found: dict[str, Any]) -> Any:
    if set(found) == {"float"}:
        return float(found["float"])
    return "".join(text * times for text, times in found["pieces"]) if set(found) == {"pieces"} else found


async def nobody(*_: Any, **__: Any) -> Any:
    raise AssertionError("no teacher is asked")


def subject_of(
    data: Mapping[str, Any], answers: Sequence[str], fields: Mapping[str, Any] | None = None, ask: Ask = nobody
) -> Subject:
    """A conversation whose turns ask for nothing, with these answers."""
    said = [Message(role=role, content=text) for one in answers for role, text in (("user", "q"), ("assistant", one))]
    return Subject(Seed(id="s-0", data=dict(data)), Candidate(messages=said, fields=dict(fields or {})), ask)


def findings_of(check: Check, subject: Subject, **options: Any) -> list[Finding]:
    return asyncio.run(check.findings(subject, check.options.model_validate(options)))
