"""The check `read_again` in German, French, Spanish and Chinese: a reader of only the text and the question must find the
candidate's answer, or none. Knows no family.
"""

import re
from collections.abc import Sequence

from pydantic import Field

from agents.checks import AttemptJudge, Subject, check
from agents.checks.base import Votes, ask_votes
from agents.checks.text.second_reader import MAX_SHOWN_CHARACTERS, ReaderAnswer
from plugins.languages.local_answers import (
    CHINESE_COMMON,
    is_known_word,
    is_silence,
    list_content_words,
    list_hour_numbers,
    list_hours,
    list_stated_numbers,
    split_answer,
)
from plugins.languages.local_quantities import LocalText
from plugins.languages.rules import LANGUAGES
from plugins.languages.units import CHARACTER

UNIT = re.compile(r"\d ?([^\W\d_]+)")
LONGEST_ABBREVIATION = 3


class LocalReadAgainOptions(Votes):
    overlap: float = Field(0.5, gt=0, le=1)
    """F1 of words, or of Chinese characters, from which answers are equal."""
    temperature: float = Field(0.0, ge=0, le=2)


def _get_values(subject: Subject, _options: LocalReadAgainOptions) -> dict[str, str]:
    return {"text": subject.seed.data["text"], "question": subject.candidate.fields["question"]}


def _finds_the_same(subject: Subject, reading: ReaderAnswer, options: LocalReadAgainOptions) -> bool:
    seed, fields = subject.seed.data, subject.candidate.fields
    found = "" if not reading.found or is_silence(reading.answer, seed["silence"]) else reading.answer
    if not seed["answerable"] or not found:
        return not seed["answerable"] and not found
    return is_same_local_answer(fields["answer"], found, fields["question"], seed["language"], options.overlap)


@check(
    "read_again",
    LocalReadAgainOptions,
    calls=lambda options: options.votes,
    roles=("verifier",),
    attempt=AttemptJudge(ReaderAnswer, _finds_the_same, _get_values),
    languages=LANGUAGES,
)
async def local_read_again_check(subject: Subject, options: LocalReadAgainOptions) -> str | None:
    """Who reads the text and the question alone must find the same answer, or none where there must be none."""
    values = _get_values(subject, options)
    read = await ask_votes(
        subject, options, "verifier", ReaderAnswer, values, lambda reading: _finds_the_same(subject, reading, options)
    )
    if read.enough:
        return None
    answerable, answer = subject.seed.data["answerable"], subject.candidate.fields["answer"]
    wanted = repr(answer[:MAX_SHOWN_CHARACTERS]) if answerable else "that the text does not say"
    shown = "; ".join(repr(one.answer[:MAX_SHOWN_CHARACTERS]) if one.found else "nothing" for one in read.given)
    return f"{read.agreeing} of {options.votes} readers found {wanted}; they found: {shown or 'no answer that could be read'}"


def is_same_local_answer(left: str, right: str, question: str, language: str, overlap: float) -> bool:
    """Whether two answers to a question agree: the same yes or no, the same numbers, and enough of the same words. Words and
    numbers of the question do not count.
    """
    (lead, said), (other_lead, other_said) = (split_answer(text, language) for text in (left, right))
    if (
        lead
        and other_lead
        and left[: len(left) - len(said)].strip(" ,，.。").casefold()
        != (right[: len(right) - len(other_said)].strip(" ,，.。").casefold())
    ):
        return False
    asked = LocalText(question, language).all_numbers
    here, there = LocalText(said, language), LocalText(other_said, language)
    numbers, other_numbers = ({*list_stated_numbers(text)} - asked for text in (here, there))
    if here.times and there.times:
        if list_hours(here) != list_hours(there):
            return False
        numbers, other_numbers = (numbers - list_hour_numbers(here), other_numbers - list_hour_numbers(there))
    if numbers != other_numbers or here.dates != there.dates or _differ_in_unit(here, there):
        return False
    words, other_words = _list_new_words(said, question, language), _list_new_words(other_said, question, language)
    if not (words and other_words) or (lead and other_lead and numbers):
        return bool(numbers or here.times) or bool(lead and other_lead) or words == other_words
    shared = (
        sum(is_known_word(word, other_words) for word in words),
        sum(is_known_word(word, words) for word in other_words),
    )
    return 2 * min(shared) >= overlap * (len(words) + len(other_words))


def _differ_in_unit(here: LocalText, there: LocalText) -> bool:
    """Whether the words after their only numbers are a unit and a multiple of it, or two abbreviations: `m`, `km`."""
    after, other = ([*UNIT.findall(text.plain)] for text in (here, there))
    if here.language == "zh" or len(after) != 1 or len(other) != 1 or after == other:
        return False
    short, long = sorted((after[0], other[0]), key=len)
    return len(long) <= LONGEST_ABBREVIATION or long.endswith(short)


def _list_new_words(text: str, question: str, language: str) -> Sequence[str]:
    if language == "zh":
        return [char for char in CHARACTER.findall(text) if char not in CHINESE_COMMON and char not in question]
    asked = list_content_words(question, language, least=1)
    return [word for word in list_content_words(text, language, least=3) if not is_known_word(word, asked)]
