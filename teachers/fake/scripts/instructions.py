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
    return {"instruction": task, "answer": answer}


SCRIPT: TeacherScript = {**COMMON, "Draft": _write_instruction_draft}
