"""Tasks that ask for a text about something, a few of them with a fault of each kind that checks look for."""

import re
from random import Random
from typing import Any

from agents.teachers.base import Question
from agents.teachers.scripts.common import COMMON, WORDS, Script, sentence

TASKS = (
    "Write two sentences about a {0} {1} and its {2}.",
    "Name three reasons to keep a {0} near the {1} in {2}.",
    "Explain how a {0} differs from a {1}, with one example of a {2}.",
    "A {0} meets a {1} at the {2}. Tell what they say to each other.",
)


def draft(rng: Random, question: Question) -> dict[str, Any]:
    words = rng.sample(WORDS, 3)
    task, answer = rng.choice(TASKS).format(*words), " ".join(sentence(rng, word) for word in words[:2])
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


SCRIPT: Script = {**COMMON, "Draft": draft}
