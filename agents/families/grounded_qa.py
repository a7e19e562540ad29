"""Grounded question answering: a passage of the user's documents, a question, an answer, and the words of the passage that say
so; or a question that the passage leaves open, as in SQuAD 2.0 (Rajpurkar et al. 2018, arXiv 1806.03822). Knows no teacher.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from agents.checks import Options, Subject, check, first_fault
from agents.checks.quotes import Quotable
from agents.checks.read_again import is_silent
from agents.checks.supported import content_words, distinct, forms, given_words, led, pool_in, pool_of, spelled
from agents.checks.written import read_text
from agents.contract import Contract
from agents.families.base import Family, text_in
from agents.families.constraints import sentences_of, words_of
from core.errors import advice_on
from core.sample import Candidate, Message, Seed

KINDS = {
    "fact": "about a fact: who, what, where or when",
    "number": "whose answer is one number, with its unit",
    "reason": "about a reason: why something is so, or is done so",
    "comparison": "that compares two things",
    "list": "whose answer names two to five things",
    "definition": "about what something is, or what it is for",
    "yes_no": "that is answered by yes or no, and by a few words of why",
}
STYLES = (
    "plain and short", "as a curious child asks", "as a customer asks in a chat", "as an examiner asks",
    "in one polite, full sentence", "as somebody in a hurry asks", "as somebody asks who has just begun with it",
)  # fmt: skip
INSTRUCTIONS = (
    "Answer the question from the text alone. If the text does not say, reply: {silence}",
    "Use nothing but the text to answer. Where it has no answer, say: {silence}",
    "Read the text and answer the question. Add nothing from elsewhere; if the answer is not there, reply: {silence}",
    "Here are a text and a question about it. Answer by what the text says, or else say: {silence}",
)
QUOTING = (
    "After an answer, quote the words of the text that say so, each quote on a line of its own that begins with >."
)
LAYOUTS = ("text_first", "question_first")
FOCUS_WORDS = range(6, 61)
"""Words of a sentence that a question can be about; a longer one is a list or a table."""
TALK = re.compile(
    r"\b(?:the|this|that|given|provided|above|following) (?:given |provided |above |following )?"
    r"(?:text|passage|document|excerpt|extract|article|paragraph|chunk|snippet)s?\b"
    r"|\b(?:mentioned|described|stated|listed|shown|discussed|said) (?:above|below|here|earlier)\b"
    r"|\baccording to (?:it|this)\b|\bthe (?:author|writer|narrator)\b",
    re.IGNORECASE,
)
"""Speaking of a text that the reader of the question does not have."""
POINTING = re.compile(r"\b(?:here|this|these|those(?! who| that)|we|us|our|ours)\b", re.IGNORECASE)
PRONOUN = re.compile(r"\b(?:he|she|him|her|his|hers|they|them|their|theirs|it|its)\b", re.IGNORECASE)
IMPERSONAL = re.compile(
    r"\bit (?=(?:takes?|took|costs?|means?|is|was|possible|necessary|important|safe|better|best|allowed|easy|hard|normal"
    r"|enough)\b.*\b(?:to|that|if|when)\b)",
    re.IGNORECASE,
)
"""`it` that stands for nothing: how long does it take to fill a lock."""
NAMED = re.compile(
    r"(?i:\b(?:the|an?|each|every|any|some|no|which|whose|two|three|four|both|all) \w+)|(?<=\s)[A-Z]\w+"
    r"|(?<=\w )(?!(?:does|was|has|always|sometimes|across|less|perhaps)\b)[a-z]{3,}s\b"
)
"""What a pronoun after it may stand for. (The third is a plural; after `what`, it is a verb.)"""
ASKING = frozenset(
    """amount big called deep far fast heavy high hot kind large long many mean means much name number often old reason size
sort tall time type wide""".split()
)
"""Words that questions ask with: a passage can answer them without having them."""


class GroundedDraft(Contract):
    question: str = Field(min_length=5)
    quotes: list[str]
    answer: str = Field(min_length=1)


class GroundedOptions(Options):
    kinds: dict[str, int] = Field(
        default_factory=lambda: dict(zip(KINDS, (4, 3, 2, 1, 2, 1, 1), strict=True)), min_length=1
    )
    """Which kinds of questions are asked, each with its weight; `number` only of passages with a number."""
    styles: tuple[str, ...] = Field(STYLES, min_length=1)
    """How a question is put: one of these, at random."""
    unanswerable: float = Field(0.2, ge=0, le=1)
    """Share of the questions that the passage seems to answer and does not."""
    silence: str = Field("The text does not say.", min_length=1)
    """The answer to those, always the same."""
    context: bool = True
    """Open book: the user's message holds the passage and the question. When false the question stands alone, and what the
    student learns is what the documents say."""
    cited: bool = True
    """Open book only: the answer is followed by its quotes."""

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: dict[str, int]) -> dict[str, int]:
        if unknown := sorted(set(kinds) - set(KINDS)):
            raise ValueError(f"unknown kinds {', '.join(unknown)}; {advice_on(unknown[0], KINDS)}")
        if min(kinds.values()) < 0 or not sum(kinds.values()):
            raise ValueError("needs at least one kind with a weight above 0, and none below")
        return kinds

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.context and self.unanswerable:
            raise ValueError(
                f"unanswerable = {self.unanswerable:g} needs context = true: without the passage nobody can tell what it "
                "leaves open; set unanswerable = 0"
            )
        return self


class StandaloneOptions(Options):
    min_words: int = Field(3, ge=1)
    max_words: int = Field(40, ge=1)


@check("standalone", StandaloneOptions)
def standalone(subject: Subject, options: StandaloneOptions) -> str | None:
    """It must be one question that does not hold its answer; without a passage, it must be understood by itself."""
    question, answer = (subject.candidate.fields[name] for name in ("question", "answer"))
    count = len(words_of(question))
    leaks = subject.seed.data["answerable"] and _adds_nothing(answer, question)
    return first_fault(
        [
            None if question.rstrip().endswith("?") else "the question does not end with a question mark",
            "ask one question, not several" if question.count("?") > 1 else None,
            None if options.min_words <= count <= options.max_words else f"the question has {count} words",
            "the answer is in the question already" if leaks else None,
            None if subject.seed.data["context"] else _dependent(question, answer),
        ]
    )


def _adds_nothing(answer: str, question: str) -> bool:
    """Whether an answer other than yes or no says only what its question says, or nothing; a choice that is offered is new."""
    said, asked = spelled(answer), spelled(question)
    known, numbers = pool_of(given_words(asked)), distinct(asked)
    new = [word for word in content_words(said) if not forms(word) & known]
    new_numbers = [number for number in distinct(said) if not number.is_among(numbers)]
    return not (led(said)[0] or new or new_numbers)


def _dependent(question: str, answer: str) -> str | None:
    """What cannot be understood without the passage."""
    for name, text in (("question", question), ("answer", answer)):
        if found := TALK.search(text):
            return f"the {name} speaks of {found.group()!r}, which nobody sees who reads it"
    if found := POINTING.search(question):
        return f"{found.group()!r} points at something that only the passage has; name it"
    bare = IMPERSONAL.sub(" ", question)
    pronoun = PRONOUN.search(bare)
    if pronoun and not NAMED.search(re.sub(r"^\W*(?:what|who)\s+\w+", "", bare[: pronoun.start()], flags=re.I)):
        return f"nobody knows for what {pronoun.group()!r} stands; name it"
    return None


@check("unanswerable")
def unanswerable(subject: Subject, _options: Options) -> str | None:
    """What the passage leaves open must be asked with a word that it does not have, near to what it has, and not answered."""
    seed, fields = subject.seed.data, subject.candidate.fields
    silent = is_silent(fields["answer"], seed["silence"])
    if seed["answerable"]:
        return "the passage has the answer; give it, with its quotes" if silent else None
    if fields["quotes"]:
        return "the passage must not have the answer, so give no quotes"
    if fields["answer"] != seed["silence"]:
        return f"the passage must not have the answer, so the answer must be {seed['silence']!r}"
    return _open_fault(fields["question"], seed["text"])


def _open_fault(question: str, text: str) -> str | None:
    asked, there = spelled(question), spelled(text)
    pool, numbers = pool_in(there), distinct(there)
    found = [bool(forms(word) & pool) for word in content_words(asked) if word.lower() not in ASKING]
    found += [number.is_among(numbers) for number in distinct(asked)]
    if all(found):
        return "the passage has every word of the question and may answer it; ask about something that it leaves out"
    return None if any(found) else "the question is about something else; stay with what the passage is about"


class GroundedQA(Family):
    name = "grounded_qa"
    options = GroundedOptions
    checks = (standalone, unanswerable)
    seeded_by = ("documents", "path")

    def condition(self, row: Mapping[str, Any], options: GroundedOptions, rng: Random) -> dict[str, Any]:
        text = _text_of(row)
        answerable = rng.random() >= options.unanswerable
        kind = _kind(options.kinds, rng, numbers=not answerable or bool(read_text(text).numbers))
        focus, style = _focus(text, kind, rng), rng.choice(options.styles)
        # One passage is always asked about in one form: the filter `novelty` then sees what differs, which is the question.
        form = Random(text)
        asked = {"kind": kind, "style": style, "focus": focus, "answerable": answerable, "context": options.context}
        return {
            "source": row.get("source", ""),
            "number": row.get("number", 0),
            "text": text,
            **asked,
            "silence": options.silence,
            "instruction": form.choice(INSTRUCTIONS).format(silence=options.silence),
            "layout": form.choice(LAYOUTS),
            "cited": options.cited,
            "request": _request(asked, options.silence),
        }

    def contract(self, seed: Seed) -> type[Contract]:
        return GroundedDraft

    def reply_schema(self, seed: Seed) -> dict[str, Any]:
        schema = super().reply_schema(seed)
        if seed.data["answerable"]:
            narrower = {"quotes": {**schema["properties"]["quotes"], "minItems": 1}}
        else:
            narrower = {"answer": {"type": "string", "enum": [seed.data["silence"]]}}
        return {**schema, "properties": {**schema["properties"], **narrower}}

    def candidate(self, seed: Seed, draft: GroundedDraft) -> Candidate:
        data, question, answer = seed.data, draft.question.strip(), draft.answer.strip()
        quotes = _as_in_the_text(draft.quotes, data["text"])
        asked, answered = question, answer
        if data["context"]:
            asked = _with_passage(data, question)
            answered = "\n".join([answer, *_cited(quotes)]) if data["cited"] else answer
        messages = [Message(role="user", content=asked), Message(role="assistant", content=answered)]
        return Candidate(messages=messages, fields={"question": question, "quotes": quotes, "answer": answer})


def _text_of(row: Mapping[str, Any]) -> str:
    return unicodedata.normalize("NFC", text_in(row, "text"))


def _kind(kinds: Mapping[str, int], rng: Random, *, numbers: bool) -> str:
    fit = {kind: weight for kind, weight in kinds.items() if numbers or kind != "number"}
    if not sum(fit.values()):
        fit = dict(kinds)
    return rng.choices(list(fit), list(fit.values()))[0]


def _focus(text: str, kind: str, rng: Random) -> str:
    """A sentence that the question is to be about, one with a number where that is asked for; empty where there is none."""
    sentences = [one for line in text.splitlines() for one in sentences_of(line) if len(words_of(one)) in FOCUS_WORDS]
    if kind == "number":
        sentences = [one for one in sentences if read_text(one).numbers] or sentences
    return rng.choice(sentences) if sentences else ""


def _request(asked: Mapping[str, Any], silence: str) -> str:
    """What is asked of the generator, in words."""
    about = f"Ask a question {KINDS[asked['kind']]}; put it {asked['style']}."
    place = f"It is to be about this part of the passage: {asked['focus']}" if asked["focus"] else ""
    if not asked["answerable"]:
        place = f"It is to be near to this part of the passage: {asked['focus']}" if asked["focus"] else ""
        task = (
            "The passage must seem to answer it and must not: ask about something that belongs to the matter and that the "
            f"passage leaves out. Give no quotes, and as the answer: {silence}"
        )
    else:
        task = "Quote the words of the passage that answer it, then answer it by these quotes alone."
    alone = "" if asked["context"] else (
        "Who gets the question does not have the passage: name what it is about, say `it` or `this` of nothing that the "
        "question has not named, and never speak of a text."
    )  # fmt: skip
    return "\n".join(filter(None, [about, place, task, alone]))


def _as_in_the_text(quotes: Sequence[str], text: str) -> list[str]:
    """The quotes as the text has them, which may have other marks and line breaks; those it does not have, as they are."""
    quotable = Quotable(text)
    spans = [quotable.find(quote) for quote in quotes]
    return [quotable.text[slice(*span)] if span else quote for span, quote in zip(spans, quotes, strict=True)]


def _cited(quotes: Sequence[str]) -> list[str]:
    return [f"> {' '.join(quote.split())}" for quote in quotes]


def _with_passage(data: Mapping[str, Any], question: str) -> str:
    """The user's message of an open book."""
    instruction = f"{data['instruction']} {QUOTING}" if data["cited"] else data["instruction"]
    parts = [f"Text:\n{data['text']}", f"Question: {question}"]
    if data["layout"] == "question_first":
        parts.reverse()
    return "\n\n".join([instruction, *parts])
