"""Short prose about a topic, of the right form and without sense."""

import re
from random import Random
from typing import Any

from agents.teachers.base import Question
from agents.teachers.scripts.common import COMMON, WORDS, Script, sentence


def draft(rng: Random, question: Question) -> dict[str, Any]:
    asked = question.messages[-1].content
    topic = re.search(r"(?:about|Describe|people like) ([\w' -]+?)\.", asked)
    subject = topic.group(1) if topic else rng.choice(WORDS)
    return {"answer": " ".join(sentence(rng, subject) for _ in range(rng.randint(1, 3)))}


def conversation(rng: Random, question: Question) -> dict[str, Any]:
    turns = max(1, len(re.findall(r"^Turn \d+:", question.messages[-1].content, re.MULTILINE)))
    return {"answers": [draft(rng, question)["answer"] for _ in range(turns)]}


SCRIPT: Script = {**COMMON, "Draft": draft, "Answer": draft, "Conversation": conversation}
