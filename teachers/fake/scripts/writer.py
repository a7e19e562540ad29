"""Short prose on a topic, alone or in a dialogue: the right form, without meaning."""

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


def _write_dialogue(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    """Exchanges, some with a price, a refusal, or one exchange too many."""
    turns = (question.json_schema or {}).get("properties", {}).get("exchanges", {}).get("minItems", 1)
    exchanges = []
    for _ in range(turns + (rng.random() < 0.05)):
        topic, fault = rng.choice(WORDS), rng.random()
        answer = " ".join(write_sentence(rng, topic) for _ in range(2))
        if fault < 0.2:
            answer = f"{answer} That is ${rng.randint(1, 99)}."
        elif fault < 0.25:
            answer = "I'm sorry, I cannot help with that."
        exchanges.append({"user": f"What about the {rng.choice(WORDS)} {topic}?", "assistant": answer})
    return {"exchanges": exchanges}


SCRIPT: TeacherScript = {**COMMON, "Draft": write_prose, "Answer": write_prose, "Dialogue": _write_dialogue}
