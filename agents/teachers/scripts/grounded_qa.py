"""Questions about a sentence of the passage, answered by its beginning, three in ten with a fault of some kind; and a reader
that looks for the sentence with most words of the question, and is wrong now and then.
"""

import re
from random import Random
from typing import Any

from agents.teachers.base import Question
from agents.teachers.scripts.common import COMMON, Script

WORD = re.compile(r"[A-Za-z]{4,}")
ABSENT = ("inventor", "warranty", "colour", "insurance", "weight", "nickname")
"""Of these, one that the passage does not have makes a question that it leaves open."""
POLAR = "Is it so with"
OPENERS = ("What about", "How is it with", "Can you tell me about")
ANSWERED = ("altered", "within", "bits", "number", "name", "denial", "leak", "mark", "talk", "silent", "whole", "twice")
LEFT_OPEN = ("quoted", "inside", "elsewhere")
FAULTY, MISREAD = 0.3, 0.12
"""Shares of drafts with a fault on purpose, and of readings that are wrong on purpose."""


def draft(rng: Random, question: Question) -> dict[str, Any]:
    passage, request = asked_of(question)
    sentences = sentences_of(passage)
    focus = request.rpartition("of the passage: ")[2].split("\n")[0]
    told = focus if focus in passage and focus else rng.choice(sentences)
    if "Give no quotes" in request:
        return _left_open(rng, passage, told, request.rpartition("as the answer: ")[2].split("\n")[0])
    polar = "yes or no" in request
    answer = f"Yes, {beginning(told)}" if polar else beginning(told)
    asked = f"{POLAR if polar else rng.choice(OPENERS)} the {' and the '.join(_words(told, rng))}?"
    made = {"question": asked, "quotes": [told], "answer": answer}
    return _spoilt(made, rng.choice(ANSWERED), passage, rng) if rng.random() < FAULTY else made


def reading(rng: Random, question: Question) -> dict[str, Any]:
    passage, _, asked = question.messages[-1].content.removeprefix("Passage: ").rpartition("\nQuestion: ")
    words, there = set(WORD.findall(asked.lower())), set(WORD.findall(passage.lower()))
    if rng.random() < MISREAD:
        return {"found": True, "answer": beginning(rng.choice(sentences_of(passage)))}
    if words & set(ABSENT) - there:
        return {"found": False, "answer": ""}
    nearest = max(sentences_of(passage), key=lambda one: len(words & set(WORD.findall(one.lower()))))
    return {"found": True, "answer": f"Yes, {beginning(nearest)}" if asked.startswith(POLAR) else beginning(nearest)}


def asked_of(question: Question) -> tuple[str, str]:
    """The last passage with what is asked about it; a revision or a repair stands after it."""
    said = next(
        m.content for m in reversed(question.messages) if m.role == "user" and m.content.startswith("Passage (")
    )
    passage, _, request = said.partition(":\n")[2].rpartition("\n\nAsk a question ")
    return passage, request


def sentences_of(passage: str) -> list[str]:
    """Those with six words or more, as they stand; the passage where there is none."""
    found = [one.strip() for line in passage.splitlines() for one in re.split(r"(?<=[.!?])\s", line)]
    return [one for one in found if len(one.split()) > 5] or [passage]


def beginning(sentence: str) -> str:
    return " ".join(sentence.split()[:8]).rstrip(",;:")


def _words(told: str, rng: Random) -> list[str]:
    """Up to three of its words, of those that the answer does not have where there are any."""
    late = WORD.findall(" ".join(told.split()[8:]))
    words = sorted(set(late or WORD.findall(told)))
    return rng.sample(words, min(len(words), 3)) or ["matter"]


def _left_open(rng: Random, passage: str, told: str, silence: str) -> dict[str, Any]:
    word = rng.choice([one for one in ABSENT if one not in passage] or ["zebra"])
    near = _words(told, rng)[0]
    made = {"question": f"What is the {word} of the {near}?", "quotes": [], "answer": silence}
    fault = rng.choice(LEFT_OPEN) if rng.random() < FAULTY else ""
    if fault == "quoted":
        made["quotes"] = [told]
    elif fault == "inside":
        made["question"] = f"What is the {near}?"
    elif fault == "elsewhere":
        made["question"] = "Which zebra won the rally at Zanzibar?"
    return made


def _spoilt(made: dict[str, Any], fault: str, passage: str, rng: Random) -> dict[str, Any]:
    told, answer = made["quotes"][0], made["answer"]
    quotes = {
        "altered": [re.sub(r"\bthe\b", "that", told, count=1) + " indeed"],
        "within": [told[1:]],
        "bits": [" ".join(told.split()[:2])],
        "whole": [passage],
        "twice": [told, told],
    }
    answers = {
        "number": f"{answer} after {rng.randint(100, 999)} minutes",
        "name": f"{answer} with Zebedee",
        "denial": f"{answer} never",
        "silent": "The text does not say.",
    }
    questions = {
        "leak": f"Is it so: {answer}?",
        "mark": made["question"].rstrip("?"),
        "talk": f"{made['question'].rstrip('?')}, as the passage says?",
    }
    return {
        "question": questions.get(fault, made["question"]),
        "quotes": quotes.get(fault, made["quotes"]),
        "answer": answers.get(fault, answer),
    }


SCRIPT: Script = {**COMMON, "GroundedDraft": draft, "ReaderAnswer": reading}
