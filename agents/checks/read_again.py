"""The check `read_again`: who reads the text and the question alone must find the candidate's answer, or that there is none.

Knows no family. What it cannot see: what the reader overlooks or believes too, and answers that differ in two plain words of
many.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from agents.checks.base import Options, Subject, check
from agents.checks.equality import Kind, equal
from agents.checks.schema import part_of
from agents.checks.supported import (
    TURNING,
    Quantity,
    content_words,
    distinct,
    forms,
    given_words,
    is_denial,
    led,
    pool_of,
    spelled,
)
from agents.checks.written import folded
from agents.contract import Contract

SILENT = re.compile(
    r"(?:the |this )?(?:text|passage|document)s? (?:does not|doesn't|do not|don't) (?:say|tell|mention|state|specify|give)\b"
    r"|not (?:said|told|mentioned|stated|specified|given)\b",
    re.IGNORECASE,
)
"""How readers say that there is no answer, whatever they were told to say."""
KINDS: tuple[Kind, ...] = ("exact", "numeric")
TOLD = 160
"""Characters of an answer that are told in evidence."""


class ReaderAnswer(Contract):
    """What a reader of text and question finds."""

    found: bool
    answer: str


class ReadAgainOptions(Options):
    text: str = "text"
    question: str = "question"
    answer: str = "answer"
    """Which fields of the candidate these are, or keys of the seed."""
    answerable: str = "answerable"
    """Which key of the seed says whether the text has the answer; without it, it has."""
    silence: str = "silence"
    """Which key of the seed is the answer where there is none."""
    reads: int = Field(1, ge=1, le=9)
    """Readers, each of whom sees the text and the question alone."""
    agree: int = Field(1, ge=1, le=9)
    """How many of them must give the candidate's answer, or find none where there must be none."""
    overlap: float = Field(0.5, gt=0, le=1)
    """F1 of words (SQuAD's measure; Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1) from which two answers are one.
    Words of the question do not count, since what is asked is not what is answered."""
    temperature: float = Field(0.0, ge=0, le=2)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.agree > self.reads:
            raise ValueError(f"agree = {self.agree} of reads = {self.reads} cannot be; lower agree")
        if self.reads > 1 and not self.temperature:
            raise ValueError(f"reads = {self.reads} at temperature = 0 are one reading; raise the temperature")
        return self


@check("read_again", ReadAgainOptions, calls=lambda options: options.reads, roles=("verifier",))
async def read_again(subject: Subject, options: ReadAgainOptions) -> str | None:
    """Who reads the text and the question alone must find the same answer, or none where there must be none."""
    seed, all_of = subject.seed.data, {**subject.seed.data, **subject.candidate.fields}
    text, question, answer = (
        part_of(all_of, name, "neither the candidate nor the seed")
        for name in (options.text, options.question, options.answer)
    )
    values = {"text": text, "question": question}
    readings = [
        await subject.ask("verifier", ReaderAnswer, values, which=i, temperature=options.temperature)
        for i in range(options.reads)
    ]
    silence = seed.get(options.silence, "")
    found = [_found(reading, silence) for reading in readings if reading is not None]
    if seed.get(options.answerable, True) is False:
        same, wanted = [not one for one in found], "that the text does not say"
    else:
        same = [bool(one) and same_answer(answer, one, question, options.overlap) for one in found]
        wanted = repr(answer[:TOLD])
    if sum(same) >= options.agree:
        return None
    shown = "; ".join(repr(one[:TOLD]) if one else "nothing" for one in found) or "no answer that could be read"
    return f"{sum(same)} of {options.reads} readers found {wanted}; they found: {shown}"


def is_silent(answer: str, silence: str) -> bool:
    """Whether an answer says that there is none."""
    bare = folded(answer).rstrip(".! ")
    return bare in ("", folded(silence).rstrip(".! ")) or bool(SILENT.match(bare))


def _found(reading: ReaderAnswer, silence: str) -> str:
    """What a reader found; empty where that is nothing."""
    return "" if not reading.found or is_silent(reading.answer, silence) else reading.answer


def same_answer(left: str, right: str, question: str, overlap: float) -> bool:
    """Whether two answers to a question are one: equal as texts or numbers, or with so much `overlap` and nothing that sets
    them apart: yes and no, a denial, numbers, names, words such as `before`.
    """
    if any(equal(kind, left, right).equal for kind in KINDS):
        return True
    (lead, one), (other_lead, other) = led(spelled(left)), led(spelled(right))
    if lead != other_lead:
        return False
    said, heard = Said.of(one), Said.of(other)
    if lead and not (said.words and heard.words):
        return True
    asked = spelled(question)
    known = pool_of(given_words(asked))
    offered = pool_of([word for word in content_words(asked) if not forms(word) & known])
    if said.contradicts(heard, offered) or said.exchanges(heard, known):
        return False
    return said.overlap(heard, known) >= overlap


class Said(NamedTuple):
    """What an answer says, without yes or no."""

    words: Sequence[str]
    numbers: Sequence[Quantity]

    @classmethod
    def of(cls, text: str) -> Self:
        return cls(content_words(text), distinct(text))

    def contradicts(self, other: "Said", offered: frozenset[str]) -> bool:
        """Whether each has a number, a name, a turning word or a choice that is `offered`, by its forms, that the other has
        not, or only one denies something.
        """
        if any(map(is_denial, self.words)) != any(map(is_denial, other.words)):
            return True
        numbers = self._numbers_not_in(other) and other._numbers_not_in(self)
        return bool(numbers or (self._signs_not_in(other, offered) and other._signs_not_in(self, offered)))

    def exchanges(self, other: "Said", known: frozenset[str]) -> bool:
        """Whether one word stands where the other has another one, as in red for green."""
        left, right = self._new(known), other._new(known)
        return len(left._words_not_in(right)) == len(right._words_not_in(left)) == 1

    def overlap(self, other: "Said", known: frozenset[str]) -> float:
        """F1 of words and numbers; words whose forms are `known` count only where there are no others."""
        left, right = self._new(known), other._new(known)
        if not (left.size and right.size):
            left, right = self, other
        shared = left.size - len(left._words_not_in(right)) - len(left._numbers_not_in(right))
        return 2 * shared / (left.size + right.size) if left.size + right.size else 0.0

    @property
    def size(self) -> int:
        return len(self.words) + len(self.numbers)

    def _new(self, known: frozenset[str]) -> "Said":
        return Said([word for word in self.words if not forms(word) & known], self.numbers)

    def _words_not_in(self, other: "Said") -> list[str]:
        """Each word of the other counts once."""
        left = list(other.words)
        missing = []
        for word in self.words:
            match = next((one for one in left if forms(word) & forms(one)), None)
            if match is None:
                missing.append(word)
            else:
                left.remove(match)
        return missing

    def _numbers_not_in(self, other: "Said") -> list[Quantity]:
        return [
            one
            for one in self.numbers
            if not (one.is_among(other.numbers) or any(two.is_among([one]) for two in other.numbers))
        ]

    def _signs_not_in(self, other: "Said", offered: frozenset[str]) -> list[str]:
        pool = pool_of(other.words)
        signs = [word for word in self.words if word[0].isupper() or word.lower() in TURNING or forms(word) & offered]
        return [word for word in signs if not forms(word) & pool]
