"""Short prose on a topic: the right form, without meaning."""

import re
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, WORDS, TeacherScript, write_sentence


def write_prose(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    asked = question.messages[-1].content
    topic = re.search(r"(?:about|Describe|people like) ([\w' -]+?)\.", asked)
    subject = topic.group(1) if topic else rng.choice(WORDS)
    return {"answer": " ".join(write_sentence(rng, subject) for _ in range(rng.randint(1, 3)))}


def _write_prose_turns(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    turns = max(1, len(re.findall(r"^Turn \d+:", question.messages[-1].content, re.MULTILINE)))
    return {"answers": [write_prose(rng, question)["answer"] for _ in range(turns)]}


SCRIPT: TeacherScript = {**COMMON, "Draft": write_prose, "Answer": write_prose, "Conversation": _write_prose_turns}
