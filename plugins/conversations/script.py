"""Conversations of the right form without meaning, whose user repeats the rules of the request, with faults now and then; and a
reader that finds the four rules whose usual words it knows.
"""

import re
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, TeacherScript, write_sentence

RULES = {
    "no_digits": r"digits()",
    "no_commas": r"commas()",
    "no_exclamation": r"exclamation marks()",
    "max_words": r"(?:at most|no more than) (\d+) words",
}


def _write_conversation(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    request = [message.content for message in question.messages if "\nTurn 1:" in message.content][
        -1
    ]  # of a revision too
    system = re.search(r"^System prompt, for every answer: (.*)$", request, re.MULTILINE)
    topic = re.search(r"^Topic: (.*)$", request, re.MULTILINE)
    subject, last, exchanges = topic[1] if topic else "it", "", []
    for turn in re.split(r"^Turn \d+.*:$", request, flags=re.MULTILINE)[1:]:
        rules = " ".join(
            re.findall(r"^- (?!no new rule)(.*)$", turn, re.MULTILINE)[: 0 if rng.random() < 0.1 else None]
        )
        answer = write_sentence(rng, subject)
        exchanges.append({"user": f"What about {last or subject}? {rules}", "assistant": answer})
        last = answer.split()[-1].strip(".")
    return {**({"system": system[1]} if system else {}), "exchanges": exchanges}


def _read_rules(_rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    shown, turns = question.messages[-1].content, []
    system, *asked = re.split(r"^Turn \d+: ", shown, flags=re.MULTILINE)
    stays = system
    for words in asked:
        text = stays + words
        found = [(kind, re.findall(pattern, text)) for kind, pattern in RULES.items()]
        turns.append(
            {"rules": [{"kind": kind, "values": [one] if one else []} for kind, all_ in found for one in all_]}
        )
        stays += " ".join(re.findall(r"from now on: [^.]*\.", words))
    return {"turns": turns}


SCRIPT: TeacherScript = {**COMMON, "WrittenConversation": _write_conversation, "RuleReading": _read_rules}
