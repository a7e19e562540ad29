"""Questions about a sentence of the passage, answered by its beginning, three in ten with a fault of some kind; and a reader
that looks for the sentence with most words of the question, and is wrong now and then.
"""

import re
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, TeacherScript

WORD = re.compile(r"[A-Za-z]{4,}")
ABSENT = ("inventor", "warranty", "colour", "insurance", "weight", "nickname")
"""A question about one of these words has no answer if the passage lacks the word."""
POLAR = "Is it so with"
OPENERS = ("What about", "How is it with", "Can you tell me about")
ANSWERED_FAULTS = (
    "altered",
    "within",
    "bits",
    "number",
    "name",
    "denial",
    "leak",
    "mark",
    "talk",
    "silent",
    "whole",
    "twice",
    "copy",
)
LEFT_OPEN_FAULTS = ("quoted", "inside", "elsewhere")
FAULTY_SHARE, MISREAD_SHARE = 0.3, 0.12
"""Shares of drafts with a fault on purpose, and of readings that are wrong on purpose."""


def _write_grounded_draft(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    passage, request = _parse_passage_request(question)
    sentences = _passage_sentences(passage)
    focus = re.split(r"of the passage: |with its header: ", request)[-1].split("\n")[0]
    sentence = focus if focus in passage and focus else rng.choice(sentences)
    if "Give no quotes" in request:
        word = rng.choice([absent for absent in ABSENT if absent not in passage] or ["zebra"])
        near = _focus_words(sentence, rng)[0]
        silence = request.rpartition("as the answer: ")[2].split("\n")[0]
        made = {"question": f"What is the {word} of the {near}?", "quotes": [], "answer": silence}
        fault = rng.choice(LEFT_OPEN_FAULTS) if rng.random() < FAULTY_SHARE else ""
        if fault == "quoted":
            made["quotes"] = [sentence]
        elif fault == "inside":
            made["question"] = f"What is the {near}?"
        elif fault == "elsewhere":
            made["question"] = "Which zebra won the rally at Zanzibar?"
        return made
    polar = "yes or no" in request
    answer = f"Yes, {first_words(sentence)}" if polar else first_words(sentence)
    asked = f"{POLAR if polar else rng.choice(OPENERS)} the {' and the '.join(_focus_words(sentence, rng))}?"
    made = {"question": asked, "quotes": [sentence], "answer": answer}
    if "first_question" in request:
        other = next((one for one in sentences if one not in sentence), sentence)
        first = {
            "first_question": f"What is said of the {_focus_words(other, rng)[0]}?",
            "first_answer": first_words(other),
        }
        made |= {**first, "question": f"And {asked}"}
    return _spoil_draft(made, rng.choice(ANSWERED_FAULTS), passage, rng) if rng.random() < FAULTY_SHARE else made


def _read_passage(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    passage, _, asked = question.messages[-1].content.removeprefix("Passage: ").rpartition("\nQuestion: ")
    words, sentences = set(WORD.findall(asked.lower())), set(WORD.findall(passage.lower()))
    if rng.random() < MISREAD_SHARE:
        return {"found": True, "answer": first_words(rng.choice(_passage_sentences(passage)))}
    if words & set(ABSENT) - sentences:
        return {"found": False, "answer": ""}
    nearest = max(_passage_sentences(passage), key=lambda sentence: len(words & set(WORD.findall(sentence.lower()))))
    return {
        "found": True,
        "answer": f"Yes, {first_words(nearest)}" if asked.startswith(POLAR) else first_words(nearest),
    }


def _parse_passage_request(question: TeacherQuestion) -> tuple[str, str]:
    """The last passage with the request about it; a revision or a repair may follow it."""
    text = next(
        m.content for m in reversed(question.messages) if m.role == "user" and m.content.startswith("Passage (")
    )
    passage, _, request = text.partition(":\n")[2].rpartition("\n\nAsk a question ")
    return passage, request


def _passage_sentences(passage: str) -> list[str]:
    """The sentences with six words or more; the whole passage if there are none."""
    sentences = [sentence.strip() for line in passage.splitlines() for sentence in re.split(r"(?<=[.!?])\s", line)]
    return [sentence for sentence in sentences if len(sentence.split()) > 5] or [passage]


def first_words(sentence: str) -> str:
    return " ".join(sentence.split()[:8]).rstrip(",;:")


def _focus_words(sentence: str, rng: Random) -> list[str]:
    """Up to three words of the sentence, preferably words that the answer lacks."""
    late = WORD.findall(" ".join(sentence.split()[8:]))
    words = sorted(set(late or WORD.findall(sentence)))
    return rng.sample(words, min(len(words), 3)) or ["matter"]


def _spoil_draft(made: dict[str, Any], fault: str, passage: str, rng: Random) -> dict[str, Any]:
    quote, answer = made["quotes"][0], made["answer"]
    quotes = {
        "altered": [re.sub(r"\bthe\b", "that", quote, count=1) + " indeed"],
        "within": [quote[1:]],
        "bits": [" ".join(quote.split()[:2])],
        "whole": [passage],
        "twice": [quote, quote],
    }
    answers = {
        "number": f"{answer} after {rng.randint(100, 999)} minutes",
        "name": f"{answer} with Zebedee",
        "denial": f"{answer} never",
        "silent": "The text does not say.",
        "copy": quote,
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


SCRIPT: TeacherScript = {**COMMON, "GroundedDraft": _write_grounded_draft, "ReaderAnswer": _read_passage}
