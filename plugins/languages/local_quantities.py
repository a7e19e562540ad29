"""Reads numbers, dates and times of day from a text, in the forms of German, French, Spanish and Chinese: `1.234,56`,
`18 de mayo de 2024`, `halb neun`, `下午2点半`. Knows no check.

A text is read generously: a spelling with two meanings counts as both, since a check asks whether a value may be written there.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import NamedTuple

from plugins.languages.number_words import MARK, write_digits
from plugins.languages.units import read_wordings

GROUPED = r"\d{1,3}(?:[.' ]\d{3})+(?:,\d+)?(?!\d)|\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])"
NUMBER = re.compile(rf"(?<![a-z\d.,])(?<![a-z]-)(?P<sign>[-−]?)(?P<n>{GROUPED}|\d+(?:[.,]\d+)?)")
CHINESE_NUMBER = re.compile(r"(?<![a-z\d.])(?P<sign>[-−]?)(?P<n>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?)")
SCALE = re.compile(rf"{MARK}? ?([^\W\d_]+)")
CHINESE_KILO = frozenset("克米瓦卡")
"""Units that `千` makes a thousand times larger."""
MINUS = re.compile(r"(?:\b(?:minus|moins|menos) |0下|负)$")
BROKEN = re.compile(r"(?<!\d)(?:(\d{1,9}) )?(\d{1,9})[⁄/]([1-9]\d{0,8})")
CHINESE_BROKEN = re.compile(r"(?<!\d)([1-9]\d{0,8})分之(\d{1,9})")
"""`2 1⁄2`, `3分之2`."""
SPOKEN_DECIMALS = re.compile(rf"(\d{{1,9}}){MARK}点{MARK}(\d{{1,9}})")
LONGEST_NUMBER = 100
"""Digits; longer ones are no numbers."""
CLOCK = re.compile(r"(?<![\d.,:])(?P<h>\d{1,2}):(?P<m>\d{2})(?!\d)")
LINK = r"\s*(?:und|bis(?: zum)?|et|au|y|al?|e|-|–|/|至|到)\s*(?:le |el |dem )?"
DAY = r"(\d{1,2})(?:\.o?|er|o|re)?"


def fold_letters(text: str) -> str:
    """`text` in small letters without accents, with plain quotation marks and single spaces."""
    parts = unicodedata.normalize("NFKD", re.sub("[¼-¾⅐-⅞]", r" \g<0>", text)).casefold()
    bare = "".join(char for char in parts if not unicodedata.combining(char))
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", bare).replace("’", "'"))


@lru_cache(maxsize=64)
def read_local_text(text: str, language: str) -> "LocalText":
    return LocalText(text, language)


class DatedSpan(NamedTuple):
    """Where a text has a day, or two, with month and year."""

    start: int
    end: int
    days: tuple[date, ...]


@dataclass(frozen=True)
class LocalText:
    """A text with the values that are written in it."""

    text: str
    language: str

    @cached_property
    def marked(self) -> str:
        """In plain letters, with number words in digits between marks."""
        return write_digits(fold_letters(self.text), self.language)

    @cached_property
    def plain(self) -> str:
        """As `marked`, without the marks."""
        return self.marked.replace(MARK, "")

    @cached_property
    def dates(self) -> frozenset[date]:
        return frozenset(day for span in self.dated for day in span.days)

    @cached_property
    def dated(self) -> Sequence[DatedSpan]:
        return [span for span in find_dated_spans(self.plain, self.language) if span.days]

    @cached_property
    def undated(self) -> str:
        """As `marked`, without dates, whose numbers are not amounts."""
        places = [place for place, char in enumerate(self.marked) if char != MARK]
        letters = list(self.marked)
        for start, end, _ in self.dated:
            for place in range(places[start], places[end - 1] + 1):
                letters[place] = "|"
        return "".join(letters)

    @cached_property
    def times(self) -> frozenset[time]:
        return frozenset(find_local_times(self.plain, self.language))

    @cached_property
    def numbers(self) -> frozenset[Fraction]:
        """Outside of dates."""
        return frozenset(find_local_numbers(self.undated, self.language))

    @cached_property
    def all_numbers(self) -> frozenset[Fraction]:
        return frozenset(find_local_numbers(self.marked, self.language))

    @cached_property
    def phrases(self) -> str:
        return normalize_phrase(self.text, self.language)

    def contains_phrase(self, phrase: str) -> bool:
        """Whether a phrase occurs, with whole words except in Chinese."""
        sought = normalize_phrase(phrase, self.language)
        return any(self._is_whole(at, at + len(sought)) for at in _find_all(sought, self.phrases))

    def _is_whole(self, start: int, end: int) -> bool:
        around = (
            (self.phrases[start - 1 : start], self.phrases[start : start + 1]),
            (self.phrases[end - 1 : end], self.phrases[end : end + 1]),
        )
        return self.language == "zh" or not any(left.isalnum() and right.isalnum() for left, right in around)


def normalize_phrase(text: str, language: str) -> str:
    """`text` without case, with plain quotation marks and dashes; of Chinese without spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate(PLAIN_MARKS)
    return re.sub(r"\s+", "" if language == "zh" else " ", plain).strip()


PLAIN_MARKS = str.maketrans(
    dict.fromkeys("‘’‚`´", "'") | dict.fromkeys("“”„«»「」『』", '"') | dict.fromkeys("‐‑–—−", "-")
)


def _find_all(sought: str, text: str) -> Iterator[int]:
    at = text.find(sought) if sought else -1
    while at >= 0:
        yield at
        at = text.find(sought, at + 1)


def find_dated_spans(plain: str, language: str) -> Iterator[DatedSpan]:
    """The days with month and year of a text with numbers in digits."""
    for match in re.finditer(r"(?<!\d)(\d{4})[-./](\d{1,2})[-./](\d{1,2})(?!\d)", plain):
        yield DatedSpan(*match.span(), (*_make_date(*match.groups()),))
    yield from _find_chinese_dates(plain) if language == "zh" else _find_named_dates(plain, language)


def _find_chinese_dates(plain: str) -> Iterator[DatedSpan]:
    form = rf"(\d{{4}}) ?年 ?(\d{{1,2}}) ?月 ?(\d{{1,2}}) ?[日号]?(?:{LINK}(?:(\d{{1,2}})月)?(\d{{1,2}})[日号])?"
    for match in re.finditer(form, plain):
        year, month, day, later, last = match.groups()
        days = *_make_date(year, month, day), *_make_date(year, later or month, last or day)
        yield DatedSpan(*match.span(), days)


def _find_named_dates(plain: str, language: str) -> Iterator[DatedSpan]:
    for match in re.finditer(r"(?<!\d)(\d{1,2})[./-] ?(\d{1,2})[./-] ?(\d{4}|\d{2})(?!\d)", plain):
        day, month, year = match.groups()
        yield DatedSpan(
            *match.span(),
            (*_make_date(year if len(year) == 4 else f"{19 if int(year) > 68 else 20}{year}", month, day),),
        )
    months = read_wordings(language)["months"]
    numbers = {name: str(at) for at, names in enumerate(months, 1) for name in names.split()}
    month = f"({'|'.join(sorted(numbers, key=len, reverse=True))})\\b\\.?"
    day_month = rf"\b{DAY}\s*(?:de )?{month}"
    full = rf"{DAY}\s*(?:de )?{month},?\s*(?:del? (?:ano )?)?(\d{{4}})"
    for form in (rf"\b{full}", rf"\b{DAY}{LINK}{full}", rf"{day_month}{LINK}{full}"):
        for match in re.finditer(form, plain):
            *first, day, name, year = match.groups()
            days = [*_make_date(year, numbers[name], day)]
            if first:
                days += _make_date(year, numbers[first[1] if len(first) > 1 else name], first[0])
            yield DatedSpan(*match.span(), tuple(days))


def _make_date(year: str, month: str, day: str) -> Iterator[date]:
    try:
        yield date(int(year), int(month), int(day))
    except ValueError:
        return


def find_local_times(plain: str, language: str) -> Iterator[time]:
    """The times of day of a text with numbers in digits. What was read as one time is not read as another."""
    table = read_wordings(language)["times"]
    spoken = [(rf"(?<!\d){form}(?![\d:])", minutes, sign) for form, minutes, sign in table["spoken"]]
    exact = [(form, 0, 1) for form in (CLOCK.pattern, *(rf"(?<![\d.,:]){form}" for form in table["exact"]))]
    for form, minutes, sign in (*spoken, *exact):
        for match in re.finditer(form, text := plain):
            found = {"m2": None, "m": None, **match.groupdict()}
            at = minutes + sign * int(found["m"] or found["m2"] or 0)
            for hour in _list_hours(int(match["h"]), text, match, language, spoken=(form, minutes, sign) in spoken):
                yield from _make_time(hour * 60 + at)
            plain = f"{plain[: match.start()]}{'|' * len(match[0])}{plain[match.end() :]}"
    yield from (time(hour) for name, hour in table["named"].items() if re.search(name, plain))


def _list_hours(hour: int, plain: str, match: re.Match[str], language: str, *, spoken: bool) -> Sequence[int]:
    """The hours that a time may mean, by the words around it. A spoken one may be of either half of the day."""
    table = read_wordings(language)["times"]
    before, after = plain[max(0, match.start() - 18) : match.start()], plain[match.end() : match.end() + 18]
    near = before[-3:] if language == "zh" else after
    places = {name: found.start() for name in ("early", "late", "night") if (found := re.search(table[name], near))}
    half = min(places, key=places.__getitem__, default="")
    if hour > 12:
        return [hour]
    if half == "night":  # `2 Uhr nachts`, `11 Uhr nachts`
        return [hour % 12 + 12 * (hour % 12 > 5)]
    either = spoken or re.search(f"{table['late']}|{table['night']}", before)
    return [*([] if half == "late" else [hour]), *([hour % 12 + 12] if half == "late" or (either and not half) else [])]


def _make_time(minutes: int) -> Iterator[time]:
    hour, minute = divmod(minutes % 1440, 60)
    yield time(hour, minute)


def find_local_numbers(marked: str, language: str) -> Iterator[Fraction]:
    """The numbers of a text, those in words too."""
    larger, end = Fraction(0), -1  # `zwei Millionen` before `dreihunderttausend`
    for match in (CHINESE_NUMBER if language == "zh" else NUMBER).finditer(marked):
        if len(match["n"]) > LONGEST_NUMBER:
            continue
        value, after = read_number_value(match["n"], language), SCALE.match(marked, match.end())
        if match["sign"] or MINUS.search(marked[max(0, match.start() - 8) : match.start()].replace(MARK, "")):
            value = -value
        word = (after[1][:1] if language == "zh" else after[1]) if after else ""
        scale = read_wordings(language)["scales"].get(word, 1)
        yield value * scale
        if word == "千" and after and after[1][1:2] in CHINESE_KILO:
            yield value  # `5千克`
        joined = 0 < value * scale < larger and not marked[end : match.start()].strip(f" {MARK}")
        if joined:
            yield larger + value * scale
        larger = (larger if joined else 0) + value * scale if scale > 1 else Fraction(0)
        end = after.start(1) + len(word) if after else -1
    yield from _find_fractions(marked, language)


def _find_fractions(marked: str, language: str) -> Iterator[Fraction]:
    plain = marked.replace(MARK, "")
    yield from (Fraction(part) for form, part in read_wordings(language)["fractions"].items() if re.search(form, plain))
    yield from (int(match[1] or 0) + Fraction(int(match[2]), int(match[3])) for match in BROKEN.finditer(plain))
    yield from (Fraction(int(match[2]), int(match[1])) for match in CHINESE_BROKEN.finditer(plain))
    yield from (Fraction(f"{match[1]}.{match[2]}") for match in SPOKEN_DECIMALS.finditer(marked))
    for match in re.finditer(read_wordings(language)["and_half"], marked):
        if (whole := re.search(r"\d+", write_digits(match[1], language))) is not None:
            yield int(whole[0]) + Fraction(1, 2)


def read_number_value(number: str, language: str) -> Fraction:
    """The value of digits, by the marks of the language: the last of two marks begins the decimals."""
    bare = re.sub("[' ]", "", number)
    points, commas = bare.count("."), bare.count(",")
    if language == "zh" or commas > 1 or (points and commas and bare.rfind(".") > bare.rfind(",")):
        return Fraction(bare.replace(",", ""))
    if points > 1 or (points and commas) or re.fullmatch(r"\d{1,3}\.\d{3}", bare):
        bare = bare.replace(".", "")
    return Fraction(bare.replace(",", "."))
