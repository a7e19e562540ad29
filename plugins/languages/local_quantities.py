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

from plugins.languages.number_words import MARK, SCALES, write_digits
from plugins.languages.units import read_wordings

GROUPED = r"\d{1,3}(?:[.' ]\d{3})+(?:,\d+)?(?!\d)|\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])"
NUMBER = re.compile(rf"(?<![a-z\d.,])(?<![a-z]-)(?P<sign>[-−]?)(?P<n>{GROUPED}|\d+(?:[.,]\d+)?)")
CHINESE_NUMBER = re.compile(r"(?<![a-z\d.])(?P<sign>[-−]?)(?P<n>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?)")
SCALE = re.compile(rf"{MARK}? ?([^\W\d_]+)")
CHINESE_SCALES = {"万": 10**4, "亿": 10**8, "千": 1000, "百": 100}
MINUS = re.compile(r"(?:\b(?:minus|moins|menos) |0下)$")
VULGAR = {"½": "0.5", "¼": "0.25", "¾": "0.75", "⅓": "1/3", "⅔": "2/3"}
FRACTIONS = {
    "de": {
        r"\banderthalb": "1.5", r"\bhalb(?:e[nrsm]?)?\b|\bhalb(?=stunde|jahr)": "0.5", r"\bdreiviertel": "0.75",
        r"\bviertel": "0.25",
    },
    "fr": {r"\bdemie?s?\b": "0.5", r"\btrois quarts\b": "0.75", r"\bquarts?\b": "0.25"},
    "es": {r"\bmedi[oa]s?\b": "0.5", r"\btres cuartos\b": "0.75", r"\bcuartos?\b": "0.25"},
    "zh": {"半": "0.5", "四分之三": "0.75", "四分之一": "0.25", "三分之一": "1/3", "三分之二": "2/3"},
}  # fmt: skip
AND_HALF = {
    "fr": re.compile(rf"(\d+){MARK}?(?: [^\W\d_]+)?(?: et| ,)? (?:{MARK}1{MARK} )?demie?\b"),
    "es": re.compile(rf"(\d+){MARK}?(?: [^\W\d_]+)? y medi[oa]\b"),
    "zh": re.compile(rf"(\d+){MARK}?[^\W\d_]{{0,2}}半"),
}
"""A number, what it counts, and a half: `deux heures et demie`."""
GERMAN_HALF = re.compile(r"\b([a-z]+)einhalb")
CLOCK = re.compile(r"(?<![\d.,:])(\d{1,2}):(\d{2})(?!\d)")
LATER = {
    "de": r"nachmittags?|abends?|nachts", "fr": r"apres-midi|soir", "es": r"tarde|noche", "zh": "下午|傍晚|晚上|夜里|晚",
}  # fmt: skip
"""Words of the later half of the day, after a time. In Chinese before it."""
EARLIER = {
    "de": r"morgens?|vormittags?|fruh", "fr": r"matin", "es": r"manana|madrugada", "zh": "上午|早上|早晨|清晨|凌晨|早",
}  # fmt: skip
FRENCH_HOUR = r"(\d{1,2}) ?(?:h|heures?)"
SPOKEN = {
    "de": (
        (r"halb (\d{1,2})", -30), (r"viertel nach (\d{1,2})", 15), (r"(?:viertel vor|dreiviertel) (\d{1,2})", -15),
    ),
    "fr": ((rf"{FRENCH_HOUR} et demie", 30), (rf"{FRENCH_HOUR} et quart", 15), (rf"{FRENCH_HOUR} moins le quart", -15)),
    "es": (
        (r"las? (\d{1,2}) y media", 30), (r"las? (\d{1,2}) y (?:cuarto|4)", 15), (r"las? (\d{1,2}) menos (?:cuarto|4)", -15),
        (r"las? (\d{1,2})", 0),
    ),
    "zh": ((r"(\d{1,2})[点时]半", 30), (r"(\d{1,2})[点时]1刻", 15), (r"(\d{1,2})[点时]3刻", 45), (r"(\d{1,2})点(?:钟|整)?", 0)),
}  # fmt: skip
"""Times by the hour that they name, and the minutes after it; each may be of either half of the day."""
EXACT = {
    "de": r"(\d{1,2})(?:[.:](\d{2}))? ?uhr(?: (\d{1,2}))?\b", "fr": r"(\d{1,2}) ?(?:h\b|h(?=\d)|heures?\b)(?: ?(\d{2}))?",
    "es": r"(\d{1,2})(?:[.:](\d{2}))?(?= ?(?:h\b|horas?\b))|las? (\d{1,2})[.:](\d{2})", "zh": r"(\d{1,2})[点时](?:(\d{1,2})分?)?",
}  # fmt: skip
NAMED = {
    "de": {"mittag": 12, "mitternacht": 0}, "fr": {"midi": 12, "minuit": 0}, "es": {"mediodia": 12, "medianoche": 0},
    "zh": {"正午": 12, "中午": 12, "午夜": 0},
}  # fmt: skip
LINK = r"\s*(?:und|bis(?: zum)?|et|au|y|al?|e|-|–|/|至|到)\s*(?:le |el |dem )?"
DAY = r"(\d{1,2})(?:\.o?|er|o|re)?"


def fold_letters(text: str) -> str:
    """`text` in small letters without accents, with plain quotation marks and single spaces."""
    parts = unicodedata.normalize("NFKD", text.translate(VULGAR_MARKS)).casefold()
    bare = "".join(char for char in parts if not unicodedata.combining(char))
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", bare).replace("’", "'"))


VULGAR_MARKS = str.maketrans({sign: f" {sign}" for sign in VULGAR})


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
        yield DatedSpan(*match.span(), (*_make_date(year if len(year) == 4 else f"20{year}", month, day),))
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
    """The times of day of a text with numbers in digits."""
    for form, minutes in SPOKEN[language]:
        for match in re.finditer(rf"(?<!\d){form}(?![\d:])", plain):
            early, late = _find_half(plain, match, language)
            for hour in ([] if late else [int(match[1])]) + ([] if early else [int(match[1]) % 12 + 12]):
                yield from _make_time(hour * 60 + minutes)
    for form in (CLOCK.pattern, rf"(?<![\d.,:]){EXACT[language]}"):
        for match in re.finditer(form, plain):
            hour, *minute = (int(one) for one in match.groups() if one)
            late = _find_half(plain, match, language)[1] and hour < 12
            yield from _make_time((hour + 12 * late) * 60 + sum(minute[:1]))
    yield from (time(hour) for name, hour in NAMED[language].items() if name in plain)


def _find_half(plain: str, match: re.Match[str], language: str) -> tuple[bool, bool]:
    """Whether words around a time say that it is of the earlier, or of the later half of the day."""
    before, after = plain[max(0, match.start() - 3) : match.start()], plain[match.end() : match.end() + 18]
    near = before if language == "zh" else after
    early, late = re.search(EARLIER[language], near), re.search(LATER[language], near)
    return bool(early), bool(late) and not (early and late and early.start() < late.start())


def _make_time(minutes: int) -> Iterator[time]:
    hour, minute = divmod(minutes % 1440, 60)
    yield time(hour, minute)


def find_local_numbers(marked: str, language: str) -> Iterator[Fraction]:
    """The numbers of a text, those in words too."""
    form = CHINESE_NUMBER if language == "zh" else NUMBER
    for match in form.finditer(marked):
        value, after = _read_value(match["n"], language), SCALE.match(marked, match.end())
        scales: dict[str, int] = CHINESE_SCALES if language == "zh" else SCALES[language]
        word = (after[1][:1] if language == "zh" else after[1]) if after else ""
        negative = match["sign"] or MINUS.search(marked[max(0, match.start() - 8) : match.start()].replace(MARK, ""))
        yield (-value if negative else value) * scales.get(word, 1)
    plain = marked.replace(MARK, "")
    for phrase, value_text in FRACTIONS[language].items():
        if re.search(phrase, plain):
            yield Fraction(value_text)
    yield from (Fraction(value_text) for sign, value_text in VULGAR.items() if sign in marked)
    for match in AND_HALF[language].finditer(marked) if language in AND_HALF else ():
        yield int(match[1]) + Fraction(1, 2)
    for match in GERMAN_HALF.finditer(marked) if language == "de" else ():
        if (whole := re.search(r"\d+", write_digits(match[1], language))) is not None:
            yield int(whole[0]) + Fraction(1, 2)


def _read_value(number: str, language: str) -> Fraction:
    """The value of digits, by the marks of the language: the last of two marks begins the decimals."""
    bare = re.sub("[' ]", "", number)
    points, commas = bare.count("."), bare.count(",")
    if language == "zh" or commas > 1 or (points and commas and bare.rfind(".") > bare.rfind(",")):
        return Fraction(bare.replace(",", ""))
    if points > 1 or (points and commas) or re.fullmatch(r"\d{1,3}\.\d{3}", bare):
        bare = bare.replace(".", "")
    return Fraction(bare.replace(",", "."))
