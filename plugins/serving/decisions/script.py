"""Texts that name the label that a reader must find, three in ten with another label; and a reader that takes the label that
the text names most, and is wrong now and then.
"""

import json
import re
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, WORDS, TeacherScript, draw_value, write_sentence

WANTED = re.compile(r"^- (\w+): .*: (.+)$", re.MULTILINE)
LURED_SHARE, MISREAD_SHARE = 0.3, 0.1
"""Shares of texts with another label than the wanted one, and of readings that are wrong on purpose."""


def _write_case(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    request = next(
        m.content for m in question.messages if m.role == "user" and "Answers that a reader must give" in m.content
    )
    named = [f"{name} {_format_value(json.loads(value))}" for name, value in WANTED.findall(request)]
    if rng.random() < LURED_SHARE:
        named = [f"{name} {rng.choice(WORDS)}" for name, _ in WANTED.findall(request)]
    return {"text": " ".join([write_sentence(rng, rng.choice(WORDS)), *(f"It is {one}." for one in named)])}


def _read_answers(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    """The answer to each question that the text names; a random one where it names none."""
    schema = question.json_schema or {}
    text = question.messages[-1].content.partition("\n\nQuestions:")[0]
    answers = {}
    for name, kind in schema["properties"].items():
        found = re.search(rf"\b{name} (.+?)\.", text)
        answers[name] = draw_value(rng, kind, schema)
        if found and rng.random() >= MISREAD_SHARE:
            answers[name] = _parse_value(found[1], kind, answers[name])
    return answers


def _format_value(value: Any) -> str:
    return (
        ", ".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _parse_value(named: str, kind: dict[str, Any], otherwise: Any) -> Any:
    if kind.get("type") == "boolean":
        return named == "true"
    if kind.get("type") == "integer":
        return int(named) if named.isdigit() else otherwise
    if kind.get("type") == "array":
        return [label for label in kind["items"]["enum"] if label in named.split(", ")]
    return named if named in kind.get("enum", [named]) else otherwise


SCRIPT: TeacherScript = {**COMMON, "WrittenCase": _write_case, "DecisionAnswers": _read_answers}
