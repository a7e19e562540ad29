"""Tables of the asked form with a question on each kind of value, one in four with a label that has a tie; and a reader of
questions that is wrong now and then.
"""

import json
import re
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, WORDS, TeacherScript

TIED_SHARE, MISREAD_SHARE = 0.25, 0.1
"""Shares of tables whose largest value is there twice, and of queries that are wrong on purpose."""
FORM, WANTED, QUESTION = (re.compile(rf"^{name}: (.+)$", re.MULTILINE) for name in ("Form", "Questions", "Question"))


def write_table(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    asked = next(m.content for m in reversed(question.messages) if FORM.search(m.content) and WANTED.search(m.content))
    label, column, *names = (word.title() for word in rng.sample(WORDS, 7))
    values = rng.sample(range(10, 90), len(names))
    if rng.random() < TIED_SHARE:
        values[0] = values[1] = 95
    programs = [
        (f"Which {label} has the highest {column}?", {"op": "argmax", "column": column}),
        (f"What is the lowest {column}?", {"op": "min", "column": column}),
        (f"What is the {column} of {names[2]}?", {"op": "value", "column": column, "row": names[2]}),
    ]
    return {
        "title": f"{column} by {label}", "columns": [label, column],
        "rows": [[name, value] for name, value in zip(names, values, strict=True)],
        "questions": [{"question": text, "program": program} for text, program in programs[: int(_find(WANTED, asked))]],
        **_write_form(_find(FORM, asked), rng),
    }  # fmt: skip


def _read_question(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    """The query of one of the questions that `write_table` asks."""
    asked = _find(QUESTION, question.messages[-1].content)
    which = re.search(r"(highest|lowest)? ?(\w+)(?: of (\w+))?\?$", asked)
    if not which or rng.random() < MISREAD_SHARE:
        return {"program": {"op": "sum", "column": which[2] if which else asked}}
    operation = {"highest": "argmax", "lowest": "min"}.get(which[1], "value")
    row = {"row": which[3]} if which[3] else {}
    return {"program": {"op": operation, "column": which[2], **row}}


def _write_form(form: str, rng: Random) -> dict[str, Any]:
    if form.startswith('"chart": '):
        return {"chart": json.loads(form.removeprefix('"chart": '))}
    if form.startswith('"template"'):
        return {"template": "report", "fields": [{"name": name, "text": rng.choice(WORDS)} for name in ("From", "To")]}
    return {}


def _find(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    assert found, f"the request has no line of {pattern.pattern}"
    return found[1]


SCRIPT: TeacherScript = {**COMMON, "PictureDraft": write_table, "QueryReply": _read_question}
