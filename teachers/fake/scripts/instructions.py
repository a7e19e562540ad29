"""Tasks that ask for a text on a topic, some with one of the faults that checks detect."""

import re
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, WORDS, TeacherScript, write_sentence

TASKS = (
    "Write two sentences about a {0} {1} and its {2}.",
    "Name three reasons to keep a {0} near the {1} in {2}.",
    "Explain how a {0} differs from a {1}, with one example of a {2}.",
    "A {0} meets a {1} at the {2}. Tell what they say to each other.",
)
FORMS = {
    "headings": "# One\n\n# Two", "a list": "- one\n- two\n- three", "a table": "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
    "code": "```\nprint()\n```", "mathematics": "$1 + 1 = 2$",
}  # fmt: skip
"""What gives an answer a form."""


def _write_instruction_draft(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    words = rng.sample(WORDS, 3)
    task, answer = rng.choice(TASKS).format(*words), " ".join(write_sentence(rng, word) for word in words[:2])
    fault = rng.random()
    if fault < 0.05:
        task = f"Draw a picture of a {words[0]} by the {words[1]}."
    elif fault < 0.10:
        task = f"As in the given prompt, write about a {words[0]}."
    elif fault < 0.15:
        answer = "I'm sorry, I cannot help with that."
    elif fault < 0.20:
        task = re.split(r"\n(?:\d+\. )?", question.messages[-1].content)[1]
    elif fault < 0.25:
        answer = "It is what it is."
    return {"instruction": task, "answer": _shape_answer(rng, question.messages[-1].content, answer)}


def _shape_answer(rng: Random, asked: str, answer: str) -> str:
    """The answer with the form and, in nine of ten, the length that the request asks for."""
    form = re.search(r"^Form of the answer: (.*)$", asked, re.MULTILINE)
    length = re.search(r"^Length of the answer: (\d+) to (\d+) words$", asked, re.MULTILINE)
    parts = [answer, FORMS.get(form[1], "") if form else ""]
    while length and rng.random() > 0.1 / int(length[2]) and len(" ".join(parts).split()) < int(length[1]):
        parts.insert(1, write_sentence(rng, rng.choice(WORDS)))
    return "\n\n".join(filter(None, parts))


def _write_task_dialogue(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    assert question.json_schema, "a reply with a name has a schema"
    properties = question.json_schema["properties"]
    draft = _write_instruction_draft(rng, question)
    if "system" in properties:
        draft["system"] = "You answer in whole sentences."
    if "later" in properties:
        draft["later"] = [
            {"user": f"And the {rng.choice(WORDS)}?", "assistant": write_sentence(rng, rng.choice(WORDS))}
            for _ in range(properties["later"]["minItems"])
        ]
    return draft


SCRIPT: TeacherScript = {**COMMON, "Draft": _write_instruction_draft, "TaskDialogueDraft": _write_task_dialogue}
