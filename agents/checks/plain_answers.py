"""Plain answers of any model, read as the fields that a check judges. Knows no check and no teacher."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import ConfigDict, field_validator

from agents.reply_schema import ReplySchema

ANSWER_LINE = re.compile(r"(?:\*\*)?\banswer(?:\*\*)?(?::| is)(?:\*\*)?[ \t]*(?P<answer>[^\n]+)", re.IGNORECASE)
CODE_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
MAX_PLAIN_NUMBER = 1e15
"""Whole numbers below it have all their digits in a float."""


class IndependentSolution(ReplySchema):
    model_config = ConfigDict(title="Solution")  # part of every request digest and of the reply cache

    solution: str
    answer: str | float

    @field_validator("answer", mode="before")
    @classmethod
    def _as_written(cls, answer: Any) -> Any:
        """Whole numbers and truth values as JSON writes them: a float has 16 digits, and true is not 1."""
        return json.dumps(answer) if isinstance(answer, int) else answer

    @property
    def answer_text(self) -> str:
        """The answer as people write it: a whole number without a point."""
        whole = isinstance(self.answer, float) and self.answer.is_integer() and abs(self.answer) < MAX_PLAIN_NUMBER
        return str(int(self.answer)) if whole else str(self.answer)


class AnswerForm(NamedTuple):
    """How a plain answer to a request is read."""

    hint: str
    """How it must be written, as a system message; empty if any form will do."""
    read: Callable[[str], Mapping[str, Any]]
    """The fields of the solver's reply that the check judges."""


def _read_final_answer(text: str) -> dict[str, Any]:
    """The answer at the end of a solution, or the whole text if it names none."""
    found = list(ANSWER_LINE.finditer(text))
    answer = found[-1]["answer"].strip().strip("*").strip() if found else text.strip()
    return {"solution": text, "answer": answer.removesuffix(".")}


def _read_whole_answer(text: str) -> dict[str, Any]:
    return {"solution": "", "answer": strip_code_fence(text)}


def _read_code_answer(text: str) -> dict[str, Any]:
    """The last code block, or the whole text if it has none."""
    blocks = CODE_BLOCK.findall(text)
    return {"solution": blocks[-1] if blocks else text}


def strip_code_fence(text: str) -> str:
    """Code without the Markdown fence that a teacher may have put around it."""
    lines = text.strip().split("\n")
    fenced = len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```"
    return "\n".join(lines[1:-1] if fenced else lines)


FINAL_ANSWER = AnswerForm(
    'Reason step by step. End with the line "Answer: X", where X is the answer alone.', _read_final_answer
)
WHOLE_ANSWER = AnswerForm("", _read_whole_answer)
CODE_ANSWER = AnswerForm("Give the whole solution in one Python code block.", _read_code_answer)
