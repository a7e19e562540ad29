"""The checks of grounded questions in German, French, Spanish and Chinese: `supported`, `own_words`, `standalone` and
`unanswerable`. Knows no teacher.

They compare words by their beginnings, and Chinese by its characters. They cannot see to which thing of a quote a number or a
name belongs, which unit a number has, or whether yes or no is right.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from pydantic import Field

from agents.checks import Options, Subject, check, first_fault
from agents.families.document_constraints import COMMON_WORDS
from agents.families.grounded_qa import MAX_COMPARED_CHARACTERS
from plugins.languages.codes import NAMES
from plugins.languages.local_family import read_task_wordings
from plugins.languages.local_quantities import (
    CHINESE_NUMBER,
    NUMBER,
    LocalText,
    find_local_numbers,
    fold_letters,
    read_number_value,
)
from plugins.languages.number_words import MARK, write_digits
from plugins.languages.rules import LANGUAGES
from plugins.languages.units import CHARACTER, count_units, read_local_sentences, read_wordings

PART = re.compile(r"[^\W_]+")
LEAST_STEM = 4
"""Letters at least that two forms of a word share."""
STEM_SHARE = 0.6
"""Of the longer word, the share of letters that both forms begin with."""
LEAST_WORDS = 3
"""Content words from which their share counts."""
CHINESE_COMMON = frozenset(
    "的一了是在有和就也不这那我他她它们个上下中大小为与及其或而但又还把被让给从到对于以之所因会能可要没无未只才都很最更太再去来过着得地吗呢吧啊呀什么怎谁哪里几多少时候候后前说做用年月日号点分天"
)
"""Characters that any answer may have."""
NOUN_ENDINGS = ("ung", "ungen", "heit", "keit", "schaft", "tion", "tionen", "nis", "tum", "chen", "en", "er", "e")
"""Of German words that are no names, although they have a capital letter."""
ARTICLES = frozenset(
    "der die das den dem des ein eine einen einem einer eines im am zum zur ins ans beim vom kein keine keinen seine"
    " ihre sein ihr seinen ihren jede jeder jedes diese dieser dieses zu viel mehr weniger".split()
)
"""German words before a noun that is no name."""
QUESTION_END = re.compile(r"[?？][\s»”\"']*$")


class LocalSupportedOptions(Options):
    share: float = Field(0.5, ge=0, le=1)
    """Share of content words, or Chinese characters, from quotes or question. Numbers, dates and names must all be."""
    max_words: int = Field(80, ge=1)


class LocalOwnWordsOptions(Options):
    longest: int = Field(10, ge=1)
    """Words in a row shared with a quote, twice that in lists. Of Chinese, two characters are a word."""
    max_words: int = Field(30, ge=1)


class LocalStandaloneOptions(Options):
    min_words: int = Field(3, ge=1)
    max_words: int = Field(40, ge=1)


class AnswerParts(NamedTuple):
    """An answer without its yes or no."""

    lead: bool
    statement: str


@check("supported", LocalSupportedOptions, languages=LANGUAGES)
def local_supported_check(subject: Subject, options: LocalSupportedOptions) -> str | None:
    """The answer must say what its quotes say: all numbers, dates and denials stem from them, names from the text, and most other
    words from quotes or question.
    """
    seed, fields = subject.seed.data, subject.candidate.fields
    if not seed["answerable"]:
        return None
    if count_local_words(fields["answer"], seed["language"]) > options.max_words:
        return f"the answer has more than {options.max_words} words"
    source = "\n".join(fields["quotes"])
    return find_unsupported(fields["answer"], source, fields["question"], seed["text"], seed["language"], options.share)


def find_unsupported(answer: str, source: str, question: str, text: str, language: str, share: float) -> str | None:
    """What of an answer its quotes do not say, in words."""
    lead, statement = split_answer(answer, language)
    if not PART.search(statement):
        return None if lead else "the answer says nothing"
    return first_fault([
        _find_number_fault(statement, source, question, language),
        _find_denial_fault(statement, source, question, language),
        _find_name_fault(statement, f"{source}\n{question}\n{text}", language),
        _find_share_fault(statement, f"{source}\n{question}", language, share),
    ])  # fmt: skip


def split_answer(answer: str, language: str) -> AnswerParts:
    match = re.match(read_task_wordings(language, "grounded_qa")["polarity"], fold_letters(answer))
    if match is None:
        return AnswerParts(False, answer)
    first = re.match(r"\W*\w+\W*", answer) if language != "zh" else re.match(r"[^，,。.！!、；;]*.", answer)
    return AnswerParts(True, answer[first.end() :] if first else answer)


def list_stated_numbers(text: LocalText) -> list[Fraction]:
    """The numbers of an answer, without articles (`ein`, `一`) and halves."""
    form = CHINESE_NUMBER if text.language == "zh" else NUMBER
    articles = re.compile(f"{MARK}1{MARK}")
    plain = articles.sub(" ", text.undated)
    stated = [*form.finditer(plain)]
    found = {*find_local_numbers(plain, text.language)} if stated else set[Fraction]()
    decimals = {read_number_value(one["n"], text.language) for one in stated if re.search("[.,]", one["n"])}
    return sorted(number for number in found if number.denominator not in (2, 4) or abs(number) in decimals)


def _find_number_fault(statement: str, source: str, question: str, language: str) -> str | None:
    said, quoted = LocalText(statement, language), LocalText(source, language)
    known = quoted.all_numbers | LocalText(question, language).all_numbers
    if lacking := said.dates - quoted.dates - LocalText(question, language).dates:
        return f"the answer says {min(lacking)}, a day that no quote has"
    if lacking_months := _list_months(said) - _list_months(quoted) - _list_months(LocalText(question, language)):
        return f"the answer says {min(lacking_months)!r}, a month that no quote has"
    if list_hours(said) <= list_hours(quoted):
        known |= list_hour_numbers(said)
    for number in list_stated_numbers(said):
        if number not in known:
            return f"the answer has the number {float(number):g}, which no quote has"
    return None


def list_hours(text: LocalText) -> set[tuple[int, int]]:
    """The times of a text on a dial of twelve hours: `halb zehn` is 9:30."""
    return {(one.hour % 12, one.minute) for one in text.times}


def list_hour_numbers(text: LocalText) -> set[Fraction]:
    """The numbers by which its times may be said."""
    parts = ((hour, hour + 1, hour + 12, minute, 60 - minute) for hour, minute in list_hours(text))
    return {Fraction(number) for some in parts for number in some}


def _list_months(text: LocalText) -> set[str]:
    """The first names of the months that a text names."""
    names = {
        name: every.split()[0] for every in read_wordings(text.language).get("months", []) for name in every.split()
    }
    return {names[word] for word in PART.findall(text.plain) if word in names and len(word) > 2}


def _find_denial_fault(statement: str, source: str, question: str, language: str) -> str | None:
    denied = _find_denial(statement, language, ())
    denying = read_task_wordings(language, "grounded_qa")["denying"].split()
    if denied is None or _find_denial(f"{source} {question}", language, denying) is not None:
        return None
    return f"the answer says {denied!r}, and no quote denies anything"


def _find_denial(text: str, language: str, more: Sequence[str]) -> str | None:
    denials = read_wordings(language)["denials"].split()
    if language == "zh":
        return next((word for word in (*denials, *more) if word in text), None)
    stems = tuple(fold_letters(stem) for stem in more)
    plain = {*map(fold_letters, denials), *stems}
    long = tuple(stem for stem in stems if len(stem) >= LEAST_STEM)
    return next((word for word in PART.findall(fold_letters(text)) if word in plain or word.startswith(long)), None)


def _find_name_fault(statement: str, source: str, language: str) -> str | None:
    """A name of the answer that neither its text nor its question has."""
    if language == "zh":
        runs = re.findall(r"[\u4e00-\u9fff]+", statement)
        known = CHINESE_COMMON | {*source}
        for run in runs:
            if strange := re.search(r"(?:_){2,}", "".join("." if char in known else "_" for char in run)):
                return f"the answer says {run[strange.start() : strange.end()]!r}, which the text does not have"
        return None
    known_words = list_content_words(source, language, least=1)
    words = [(match[0], match.start()) for match in PART.finditer(statement)]
    for place, (word, start) in enumerate(words):
        plain = fold_letters(word)
        if not word[0].isupper() or plain in _common(language) or MARK in write_digits(plain, language):
            continue
        begins = not re.search(r"[\w,;:]\W*$", statement[:start]) or bool(re.search(r"[.!?]\s*$", statement[:start]))
        named_next = place + 1 < len(words) and words[place + 1][0][:1].isupper()
        if begins and not (len(words) <= LEAST_WORDS or named_next):
            continue
        if language == "de" and not named_next and len(words) > LEAST_WORDS and not _may_be_german_name(words, place):
            continue
        if not is_known_word(plain, known_words):
            return f"the answer says {word!r}, which the text does not have"
    return None


def _may_be_german_name(words: Sequence[tuple[str, int]], place: int) -> bool:
    word, before = words[place][0], words[place - 1][0] if place else ""
    if before[:1].isupper() and fold_letters(before) not in ARTICLES | _common("de"):
        return True
    return not (before.lower() in ARTICLES or before.isdigit() or word.lower().endswith(NOUN_ENDINGS))


def _find_share_fault(statement: str, source: str, language: str, share: float) -> str | None:
    if language == "zh":
        said = [char for char in CHARACTER.findall(statement) if char not in CHINESE_COMMON]
        strange = [char for char in said if char not in source]
    else:
        known = list_content_words(source, language, least=1)
        said = list_content_words(statement, language)
        strange = [word for word in said if not is_known_word(word, known)]
    if len(said) < LEAST_WORDS or len(strange) <= (1 - share) * len(said):
        return None
    return f"neither quotes nor question have most words of the answer: {', '.join(strange[:5])}"


@cache
def _common(language: str) -> frozenset[str]:
    """The most frequent words in plain letters, and others that say nothing of a thing."""
    more = read_task_wordings(language, "grounded_qa")["function_words"].split()
    return frozenset(fold_letters(word) for word in (*COMMON_WORDS[NAMES[language]], *more))


def list_content_words(text: str, language: str, least: int = LEAST_STEM) -> list[str]:
    """Words of `least` letters or more in plain letters, without the most frequent ones."""
    common = _common(language)
    return [
        word
        for word in PART.findall(fold_letters(text))
        if len(word) >= least and word not in common and not word.isdigit()
    ]


def is_known_word(word: str, known: Iterable[str]) -> bool:
    """Whether one of the `known` words is this one, another form of it, or a compound with it."""
    for other in known:
        if word == other:
            return True
        shared = next(
            (at for at, pair in enumerate(zip(word, other, strict=False)) if pair[0] != pair[1]),
            min(len(word), len(other)),
        )
        if shared >= LEAST_STEM and shared >= STEM_SHARE * max(len(word), len(other)):
            return True
        if min(len(word), len(other)) > LEAST_STEM and (word in other or other in word):
            return True
    return False


@check("own_words", LocalOwnWordsOptions, languages=LANGUAGES)
def local_own_words_check(subject: Subject, options: LocalOwnWordsOptions) -> str | None:
    """The answer must answer in a few words, and not repeat its quotes, which follow it anyway."""
    seed, fields = subject.seed.data, subject.candidate.fields
    if not seed["answerable"]:
        return None
    language, answer = seed["language"], fields["answer"]
    if (count := count_local_words(answer, language)) > options.max_words:
        return f"the answer has {count} words; answer in at most {options.max_words}"
    longest = options.longest * (2 if seed.get("kind") == "list" else 1)
    said = list_units(answer, language)
    for quote in fields["quotes"]:
        match = SequenceMatcher(None, said, quoted := list_units(quote, language), autojunk=False).find_longest_match()
        run = quoted[match.b : match.b + match.size]
        if count_local_words(" ".join(run), language) > longest:
            shown = ("" if language == "zh" else " ").join(run[:24])
            return f"the answer repeats its quote ({shown!r}); answer in a few words of your own"
    return None


def list_units(text: str, language: str) -> list[str]:
    """The words of a text in plain letters, or its Chinese characters."""
    text = text[:MAX_COMPARED_CHARACTERS]
    return CHARACTER.findall(text) if language == "zh" else PART.findall(fold_letters(text))


def count_local_words(text: str, language: str) -> int:
    """The words of a text. Of Chinese, two characters are a word."""
    count = count_units(text, language)[1]
    return (count + 1) // 2 if language == "zh" else count


@check("standalone", LocalStandaloneOptions, languages=LANGUAGES)
def local_standalone_check(subject: Subject, options: LocalStandaloneOptions) -> str | None:
    """It must be one question that does not hold its answer. Without a passage, it must not speak of one."""
    seed, fields = subject.seed.data, subject.candidate.fields
    question, language = fields["question"], seed["language"]
    wordings = read_task_wordings(language, "grounded_qa")
    if not QUESTION_END.search(question):
        return "the question does not end with a question mark"
    if len(re.findall("[?？]", question)) > 1:
        return "ask one question, not several"
    if language == "es" and "¿" not in question:
        return "the question has no '¿'"
    if not options.min_words <= (count := count_local_words(question, language)) <= options.max_words:
        return f"the question has {count} words"
    if seed["answerable"] and _adds_nothing(fields["answer"], question, language):
        return "the answer is in the question already"
    if not seed["context"]:
        for name in ("question", "answer"):
            if match := re.search(wordings["passage_words"], fold_letters(fields[name])):
                return f"the {name} speaks of {match[0]!r}, which nobody sees who reads it"
    return None


def _adds_nothing(answer: str, question: str, language: str) -> bool:
    """Whether an answer other than yes or no adds no word or number to its question, which offers no choice."""
    lead, statement = split_answer(answer, language)
    wordings = read_task_wordings(language, "grounded_qa")
    if lead or re.search(wordings["choice"], fold_letters(question)):
        return False
    asked = LocalText(question, language)
    if set(list_stated_numbers(LocalText(statement, language))) - asked.all_numbers:
        return False
    if language == "zh":
        return all(char in question for char in CHARACTER.findall(statement))
    known = PART.findall(fold_letters(question))
    return all(is_known_word(word, known) for word in PART.findall(fold_letters(statement)))


@check("unanswerable", languages=LANGUAGES)
def local_unanswerable_check(subject: Subject, _options: Options) -> str | None:
    """What the passage leaves open must be asked with a word that it does not have, near to what it has, and not answered."""
    seed, fields = subject.seed.data, subject.candidate.fields
    language, silent = seed["language"], is_silence(fields["answer"], seed["silence"])
    if seed["answerable"]:
        return "the passage has the answer; give it, with its quotes" if silent else None
    if fields["quotes"]:
        return "the passage must not have the answer, so give no quotes"
    if fields["answer"] != seed["silence"]:
        return f"the passage must not have the answer, so the answer must be {seed['silence']!r}"
    asked = _list_asked_words(fields["question"], language)
    if not any(_is_in(word, seed["text"], language) for word in asked):
        return "the question is about something else; stay with what the passage is about"
    for sentence in read_local_sentences(seed["text"], language).pieces:
        if asked and all(_is_in(word, sentence, language) for word in asked):
            return f"{sentence[:160]!r} of the passage has every word of the question; ask about what it leaves out"
    return None


def is_silence(answer: str, silence: str) -> bool:
    """Whether an answer says that the text has none."""
    bare, silent = (fold_letters(text).strip(" .。!") for text in (answer, silence))
    return bare in ("", silent)


def _list_asked_words(question: str, language: str) -> list[str]:
    """The content words of a question; of Chinese, its pairs of characters."""
    if language != "zh":
        return list_content_words(question, language)
    runs = re.findall(r"[\u4e00-\u9fff]+", "".join(char if char not in CHINESE_COMMON else " " for char in question))
    return [run[at : at + 2] for run in runs for at in range(max(1, len(run) - 1))]


def _is_in(word: str, text: str, language: str) -> bool:
    return word in text if language == "zh" else is_known_word(word, list_content_words(text, language, least=1))
