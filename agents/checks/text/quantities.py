"""Reads numbers and their units from a text, in all their spellings, with its dates and times of day.

English conventions. An ambiguous spelling is not read: a missed value costs a sample, an invented one costs trust. Of ten texts
with numbers (`NUMBERS` in `tests/agents/checks/test_occurs.py`), quantulum3 0.10 reads one right and text2num 3.1 two; they
invent a number in nine and six.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from agents.checks.text.text_units import (
    CONTRAST_WORDS,
    DENIALS,
    ENGLISH,
    FUNCTION_WORDS,
    NEGATED_SUBJECT,
    NEGATION_BEFORE,
    find_positions,
    fold_text,
    has_word_edges,
    joins_word,
    loosen_text,
    read_word_groups,
)

# Dates and times

DAYS_APART = r"\s*(?:-|–|—|to|until|till)\s*"
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
MONTH = (
    r"(?P<m>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
DAYS = rf"(?:(?P<d1>\d{{1,2}})(?:st|nd|rd|th)?{DAYS_APART})?{DAY}"
DATES = tuple(
    re.compile(rf"(?<![\w/.\-]){form}(?![\w]|[/.\-]\d)", re.IGNORECASE)
    for form in (
        r"(?P<y>\d{4})-(?P<n>\d{2})-(?P<d>\d{2})(?=T\d|(?!\w))(?:T[\d:.]+(?:Z|[+-]\d\d:\d\d)?)?",
        r"(?P<y>\d{4})[/.](?P<n>\d{1,2})[/.](?P<d>\d{1,2})",
        r"(?P<d>\d{1,2})\.\s?(?P<n>\d{1,2})\.\s?(?P<y>\d{4})",
        r"(?P<a>\d{1,2})/(?P<b>\d{1,2})/(?P<y>\d{4})",
        rf"{DAYS}(?:\s+(?:of\s+)?|-|\.\s?){MONTH}(?:,?\s+(?:of\s+)?|-)(?P<y>\d{{4}})",
        rf"{MONTH}\s+(?:the\s+)?{DAYS},?\s+(?P<y>\d{{4}})",
    )
)

AM_PM_PATTERN = r"(?P<half>[ap])\.?m\b\.?"
PART_OF_DAY_PATTERN = r"\s+(?:in the (?P<part>morning|afternoon|evening)|(?P<night>at night|tonight))"
CLOCK = re.compile(
    rf"(?<![\w:.,/])(?<!\D-)(?P<h>\d{{1,2}})(?:[:.](?P<min>\d{{2}})(?::(?P<s>\d{{2}}))?)?"
    rf"(?:\s?{AM_PM_PATTERN}|\s?h(?:rs)?\b)?(?:{PART_OF_DAY_PATTERN})?(?![\w:]|[.,/]\d)",
    re.IGNORECASE,
)
CLOCKS = re.compile(
    rf"(?<![\w:.,/\-])(?P<h1>\d{{1,2}})(?:[:.](?P<min1>\d{{2}}))?\s*(?:-|–|—|to|until|till|and)\s*"
    rf"(?P<h>\d{{1,2}})(?:[:.](?P<min>\d{{2}}))?(?:\s?{AM_PM_PATTERN}|{PART_OF_DAY_PATTERN})(?!\w)",
    re.IGNORECASE,
)
NAMED_TIMES = {"noon": time(12), "midday": time(12), "midnight": time(0)}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT(\d\d):(\d\d)(?::(\d\d))?")

PARTIAL_DATE_PATTERNS = (
    re.compile(rf"\b{DAY}\s+(?:of\s+)?{MONTH}\b", re.I),
    re.compile(rf"\b{MONTH}\s+(?:the\s+)?{DAY}\b", re.I),
)
"""Days without a year: no date, and no number either."""


def match_dates(match: re.Match[str]) -> Iterator[date]:
    parts = match.groupdict()
    if "a" in parts:
        a, b = int(parts["a"]), int(parts["b"])
        if a != b and max(a, b) <= 12:
            return
        days, month = [max(a, b) if a != b else a], min(a, b)
    else:
        days = [int(parts["d"])]
        days += [first for first in [int(parts.get("d1") or 32)] if first < days[0]]
        month = int(parts["n"]) if "n" in parts else month_number(parts["m"])
    for day in days:
        try:
            yield date(int(parts["y"]), month, day)
        except ValueError:
            continue


def month_number(name: str) -> int:
    """The number of a month by its name or abbreviation."""
    return MONTHS.index(name[:3].lower()) + 1


def find_times(text: str) -> Iterator[time]:
    for stamp in STAMP.finditer(text):
        yield from _valid_time(int(stamp[1]), int(stamp[2]), int(stamp[3] or 0))
    for pair in CLOCKS.finditer(text):
        last = next(match_times(pair), None)
        if last is not None:
            yield last
            # The second time decides the half of the day: 6 to 8 pm begins at 18, 11 to 1 pm at 11.
            hour = int(pair["h1"])
            later = hour + 12 if hour < 12 else hour
            first = later if last.hour >= 12 and later <= last.hour else hour
            yield from _valid_time(first, int(pair["min1"] or 0))
    for clock in CLOCK.finditer(CLOCKS.sub(lambda match: "\0" * len(match.group()), text)):
        yield from match_times(clock)
    yield from (NAMED_TIMES[word] for word in re.findall(r"\b(?:noon|midday|midnight)\b", text.lower()))


def match_times(match: re.Match[str]) -> Iterator[time]:
    """The time of a match of `CLOCK`, or the second of `CLOCKS`, if it is one."""
    hour, minute = int(match["h"]), match["min"]
    half = (match["half"] or "").lower()
    part = (match["part"] or match["night"] or "").lower()
    pm = half == "p" or part in ("afternoon", "evening", "at night", "tonight")
    am = half == "a" or part == "morning"
    pointed = minute is not None and ":" not in match.group()
    if not (pm or am) and (minute is None or pointed):
        return  # a bare number, or a decimal
    if half and not 1 <= hour <= 12:
        return
    if (pm and hour < 12) or (am and hour == 12):
        hour = (hour + 12) % 24
    yield from _valid_time(hour, int(minute or 0), int(match.groupdict().get("s") or 0))


def _valid_time(hour: int, minute: int, second: int = 0) -> Iterator[time]:
    if hour < 24 and minute < 60 and second < 60:
        yield time(hour, minute, second)


# Numbers

PHONE = re.compile(r"\+\d[\d ()/\-]{5,}\d")
VULGAR_FRACTIONS = "½⅓⅔¼¾⅛⅜⅝⅞"
PLAIN = r"(?:(?:[1-9]\d{0,2}(?:[,'\u00a0\u202f]\d{3})+|0|[1-9]\d*)(?:\.\d+)?|\.\d+)"
COMMA = r"(?:(?:[1-9]\d{0,2}(?:\.\d{3})+|0|[1-9]\d*),\d{1,2})"
"""1,234.5 and, if unambiguous, 1.234,50; 1.234 is a decimal."""
NUMBER = rf"(?:{COMMA}(?![\d,.])|{PLAIN})"
MONEY = r"(?:(?:US|AU?|CA?|NZ)?[€$£¥]|EUR|USD|GBP|CHF)"
LETTER = "[A-Za-zÀ-ɏµμΩ]"
"""Of units; for Python, ² and ½ are letters too."""
UNIT_LETTERS = "mglthsdwpkMVWL"
"""Letters that are a unit by themselves; 9a is a room."""
TOKEN = re.compile(
    rf"(?:[A-Za-z]+[:=])?(?P<sign>[-−]?)[+~≈<>≤≥#]?(?P<money>{MONEY}?)(?P<n>{NUMBER})(?P<vulgar>[{VULGAR_FRACTIONS}]?)"
    rf"(?:(?P<k>[kK]?)(?P<dash>[-–—]){MONEY}?(?P<n2>{NUMBER}))?"
    rf"(?!{LETTER}(?<![{UNIT_LETTERS}])(?!\w))(?P<suffix>(?:(?:{LETTER}|[%°€$£¥]){{1,12}}[²³]?)?|[ck]?m[23])"
    rf"(?:/{LETTER}+[²³]?)?(?:-[a-z]{{3,}})*"
)
SIZES = re.compile(rf"({NUMBER})[x×]({NUMBER})(?:[x×]({NUMBER}))?(?:[a-z]{{1,3}}|\")?")
FRACTION = re.compile(r"([1-9]\d?)/([1-9]\d?)")
CODE = re.compile(r"(?:^|[ /-])0\d|\b\d{3}-\d{4}\b|-\d+-|(?:^| )[1-9]\d{0,2} \d{3}\b")
MAX_PIECE = 100
"""Characters of a piece that is parsed as a number; numbers in texts are shorter."""
OUTER_MARKS = "()[]{}\"'“”„‘’*_|…;:!?,"
SCALES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "dozen": 12}
SHORT_SCALES = {"k": 1_000, "mn": 10**6, "mio": 10**6, "bn": 10**9}
PART = r"(?:thirds?|quarters?|hal(?:f|ves)|fifths?|sixths?|eighths?|tenths?|hundredths?)"
SUFFIXES = {"k": 1_000, "K": 1_000, "M": 10**6, "mn": 10**6, "Mio": 10**6, "bn": 10**9}
SMALL = {word: value for value, word in enumerate(ENGLISH["small_numbers"].split())}
TENS = {word: 10 * i for i, word in enumerate(ENGLISH["tens"].split(), 2)}
COUNTS = {**SMALL, **TENS}
NUMBER_WORDS_RUN = re.compile(
    rf"(?<![\w'])(?:(?P<sign>minus|negative)\s)?(?P<run>(?:half )?(?:an?\s+(?={'|'.join(SCALES)}))?"
    rf"(?:{'|'.join([*COUNTS, *SCALES])})(?:(?:\s+and\s+|\s+|-)(?:{'|'.join([*COUNTS, *SCALES])})\b)*)(?![\w'])"
)
NON_COUNT_CONTEXT = re.compile(r"\b(?:no|any|every|some|this|that|these|which|the|each|another|either|such)\s$")
"""After these words, `one` is not a number."""
PAST_HOUR_CONTEXT = re.compile(r"\b(?:past|quarter to)\s$")
NON_NUMBER_AFTER = re.compile(
    rf"[\s-](?:point|{PART}|and-a|past|o'clock|another|way|off|time|sided"
    r"|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)\b"
)
"""After a number word these make it part of a fraction, an ordinal or a time."""
ORDINALS = {word: value for value, word in enumerate(ENGLISH["ordinals"].split(), 1)}
ORDINALS |= {re.sub("y$", "ieth", word): value for word, value in TENS.items()}
ORDINAL = re.compile(
    rf"(?<![\w'])(?<!\bone )(?<!\bper )(?<!\d )(?:(?P<tens>{'|'.join(TENS)})[ -])?(?P<word>{'|'.join(ORDINALS)})(?![\w'])"
)
"""`second` after a count is a unit of time."""

# Numbers with their units

PRONOUN_ONE = re.compile(
    r"\b(?:(?:the|an?|this|that|each|every|any|another|which) (?!number )\w+|without) $", re.IGNORECASE
)
"""Before `one` without a noun: the upper one, an island without one."""
UNITS = {name: unit for unit, *names in read_word_groups("units") for name in (unit, *names)}
"""The canonical unit by each of its names; the short names are read only after a number."""
MONEY_SIGNS = "€$£"
PARTS = re.compile(rf"(?P<money>[{MONEY_SIGNS}]?)(?P<number>.*\d)-?(?P<suffix>[^\W\d_]*|%|°[CF]?|[{MONEY_SIGNS}])")
REWRITABLE_NUMBER = re.compile(r"-?[\d.,'/½⅓⅔¼¾⅛⅜⅝⅞-]+(?: [a-z]+)?")
"""A number whose value may be written in another way; what has other signs (<5, 14:30, K17) must be in a quote as it is."""
MINUS = re.compile(r"(?<![\w-])(?:minus|negative) $", re.IGNORECASE)
FOLLOWING_UNIT = re.compile(rf"[\s-]+([^\W\d_]+(?:'clock)?|%|°[CF]?|[{MONEY_SIGNS}])")
RANGE_WORD = re.compile(r"\s*(?:-|to|and|or)\s*")
"""Between two numbers with one unit."""


def parse_number_words(text: str) -> Fraction | None:
    """The value of a text that is one cardinal number in words; None for any other text."""
    match = NUMBER_WORDS_RUN.fullmatch(fold_text(text).replace(", ", " "))
    values = _spelled_numbers(re.split(r"\s+|-", match["run"])) if match else []
    return (-values[0] if match and match["sign"] else values[0]) if len(values) == 1 else None


@lru_cache(maxsize=64)
def read_written(text: str) -> "WrittenText":
    return WrittenText(text)


@dataclass(frozen=True)
class WrittenText:
    """A text with the values that are written in it."""

    text: str

    @cached_property
    def folded(self) -> str:
        return fold_text(self.text)

    @cached_property
    def loosened(self) -> str:
        return loosen_text(self.text)

    @cached_property
    def dates(self) -> frozenset[date]:
        """Days written with their year, unless they can be read in two ways (03/05/2025)."""
        return frozenset(
            day for pattern in DATES for match in pattern.finditer(self.text) for day in match_dates(match)
        )

    @cached_property
    def times(self) -> frozenset[time]:
        """Times of day. A time without am, pm or a part of the day is read on the 24-hour clock."""
        return frozenset(find_times(self.text))

    @cached_property
    def numbers(self) -> frozenset[Fraction]:
        """Numbers in digits and in words. Parts of dates (except years), times and telephone numbers are left out."""
        rest = self.text
        for pattern in (*DATES, *PARTIAL_DATE_PATTERNS, CLOCKS, CLOCK, PHONE):
            rest = pattern.sub(_mask_match, rest)
        years = {Fraction(day.year) for day in self.dates}
        return frozenset({*_numbers_in_digits(rest), *_numbers_in_words(fold_text(rest)), *years})

    def has_ordinal(self, value: int, noun: str = "") -> bool:
        """Whether `value` is written as an ordinal in words (`third`), before `noun` if one is given."""
        return any(
            TENS.get(match["tens"], 0) + ORDINALS[match["word"]] == value
            and re.match(rf"\s*{re.escape(noun)}(?!\w)", self.folded[match.end() :])
            for match in ORDINAL.finditer(self.folded)
        )

    def contains_phrase(self, words: str) -> bool:
        """Whether `words` occur whole in the text, except for white space and case.

        A part of a compound with a hyphen, a point, a slash between digits or the like is not whole.
        """
        sought = fold_text(words)
        for start in find_positions(self.folded, sought) if sought else ():
            end = start + len(sought)
            before, after = self.folded[max(0, start - 2) : start][::-1], self.folded[end : end + 2]
            first, last = sought[0], sought[-1]
            cut = not has_word_edges(self.folded, start, end) or joins_word(before, first) or joins_word(after, last)
            signed = first.isdigit() and before[:1] in ("-", "+")
            owned = last.isalpha() and re.match(r"'[^\Ws]", after)
            named = first.isalpha() and re.match(r"'\w", before)
            if not (cut or signed or owned or named):
                return True
        return False

    def mentioned_terms(self, terms: Mapping[str, Iterable[str]], *, by_subject: bool = False) -> set[str]:
        """The keys with one of their terms in the text, longer terms first: `non-smoking` is not a mention of `smoking`.

        A term after a denial (`no`, `not`, `without`) does not count; with `by_subject`, nor does one that its subject denies
        (`nothing here is urgent`).
        """
        denial = f"{NEGATION_BEFORE}|{NEGATED_SUBJECT}" if by_subject else NEGATION_BEFORE
        left, mentioned = self.loosened, set()
        pairs = {(loosen_text(term), key) for key, some in terms.items() for term in some}
        for term in sorted({term for term, _ in pairs if term}, key=lambda term: (-len(term), term)):
            for at in find_positions(left, term):
                if not has_word_edges(left, at, at + len(term)):
                    continue
                if not re.search(denial, left[max(0, at - 60) : at]):
                    mentioned |= {key for known_term, key in pairs if known_term == term}
                left = left[:at] + "\0" * len(term) + left[at + len(term) :]
        return mentioned


def _mask_match(match: re.Match[str]) -> str:
    is_time = match.re in (CLOCK, CLOCKS)
    keep = is_time and not list(find_times(match.group()))
    return match.group() if keep else " " + "\0" * (len(match.group()) - 2) + " "


def _numbers_in_digits(text: str) -> Iterator[Fraction]:
    """Numbers that are whole pieces between spaces: B12, INV-1042, 5e3 and 2.3.1 are not numbers."""
    pieces = [_strip_outer_marks(piece) for piece in re.split(r"[ \t\r\n\f\v]+", text.replace("’", "'"))]
    # Pieces of telephone numbers and the like, or of 1 200, which may be one number or two
    codes: set[int] = set()
    run: list[int] = []
    for i, piece in enumerate([*pieces, ""]):
        if piece.replace("-", "").replace("/", "").isdigit():
            run.append(i)
            continue
        if CODE.search(" ".join(pieces[member] for member in run)):
            codes.update(run)
        run = []
    for i, piece in enumerate(pieces):
        if piece and i not in codes:
            before = pieces[i - 1].lower() if i else ""
            sign = -1 if before in ("minus", "negative") else 1
            yield from (sign * value for value in _numbers_in_context(before, piece, pieces[i + 1 : i + 4]))


def _numbers_in_context(before: str, piece: str, after: Sequence[str]) -> list[Fraction]:
    """The numbers of a piece with its neighbors: 5 million, 1 1/2, 2 and a half; not 2 thirds or half past 7."""
    behind = after[0].lower() if after else ""
    if before == "past" or re.fullmatch(rf"{PART}|past|o'clock", behind):
        return []
    if FRACTION.fullmatch(piece) and before.isdigit():
        return []  # read with the number before
    values = _piece_numbers(piece)
    if piece.isdigit() and (part := FRACTION.fullmatch(behind)):
        return [int(piece) + Fraction(int(part[1]), int(part[2]))]
    if values and (half := re.fullmatch("and a (half|quarter)", " ".join(after).lower())):
        return [values[-1] + Fraction(1, 2 if half[1] == "half" else 4)]
    return [{**SCALES, **SHORT_SCALES}.get(behind, 1) * value for value in values]


def _strip_outer_marks(piece: str) -> str:
    """A piece without the marks around it; a point before digits stays."""
    return piece.lstrip(OUTER_MARKS).rstrip(f"{OUTER_MARKS}.")


def _piece_numbers(piece: str) -> list[Fraction]:
    if len(piece) > MAX_PIECE:
        return []
    if piece in VULGAR_FRACTIONS and len(piece) == 1:
        return [_vulgar_value(piece)]
    if part := FRACTION.fullmatch(piece):
        return [Fraction(int(part[1]), int(part[2]))] if int(part[1]) < int(part[2]) else []
    if sizes := SIZES.fullmatch(piece):
        return [_number_value(size) for size in sizes.groups() if size] if not piece.startswith("0x") else []
    match = TOKEN.fullmatch(piece)
    if not match:
        return []
    scale = 10**6 if match["suffix"] == "m" and match["money"] else SUFFIXES.get(match["suffix"], 1)
    first = _number_value(match["n"])
    if match["n2"] is None:
        value = first + (_vulgar_value(match["vulgar"]) if match["vulgar"] else 0)
        return [scale * (-value if match["sign"] else value)]
    last = _number_value(match["n2"])
    telephone = match["dash"] == "-" and len(match["n"]) == 3 and len(match["n2"]) == 4
    score = max(first, last) < 100
    if (first < last or score) and not telephone and not match["sign"] and not match["vulgar"]:
        return [first * (1_000 if match["k"] else scale), last * scale]
    return []


def _vulgar_value(character: str) -> Fraction:
    return Fraction(unicodedata.numeric(character)).limit_denominator(8)


def _number_value(number: str) -> Fraction:
    if re.fullmatch(COMMA, number):
        number = number.replace(".", "").replace(",", ".")
    return Fraction(re.sub(r"[,'\u00a0\u202f]", "", number))


def _numbers_in_words(text: str) -> Iterator[Fraction]:
    for match in NUMBER_WORDS_RUN.finditer(text):
        before, after = text[: match.start()][-20:], text[match.end() :][:20]
        values = _spelled_numbers(re.split(r"\s+|-", match["run"]))
        if PAST_HOUR_CONTEXT.search(before):
            values = values[1:]
        if values and NON_NUMBER_AFTER.match(after):
            values = values[: -2 if re.search(r" and \w+$", match["run"]) else -1]
        elif values and (part := re.match(r" and a (half|quarter)\b", after)):
            values[-1] += Fraction(1, 2 if part[1] == "half" else 4)
        pronoun = match["run"].startswith("one") and (NON_COUNT_CONTEXT.search(before) or re.match(r" of\b", after))
        if (match["run"] == "one" and pronoun) or re.search(r"\d\s$", before):
            continue
        yield from (-value if match["sign"] else value for value in values)


def _spelled_numbers(words: Sequence[str]) -> list[Fraction]:
    """The numbers in a run of number words, in their order."""
    values: list[Fraction] = []
    whole, current, open_ = 0, 0, False
    half = words[0] == "half"
    for word in words:
        if word in COUNTS:
            # Twenty and one, or hundred and twelve, are one number; two and three are two.
            if word in TENS or SMALL[word] >= 10:
                extends = current % 100 == 0
            else:
                extends = SMALL[word] > 0 and current % 10 == 0 and current % 100 != 10
            if open_ and not extends:
                values.append(Fraction(whole + current))
                whole, current = 0, 0
            current, open_ = current + COUNTS[word], True
        elif word in ("hundred", "dozen"):
            current, open_ = (current if open_ or current else 1) * SCALES[word], True
        elif word in SCALES:
            whole, current, open_ = whole + (current or 1) * SCALES[word], 0, True
    values.append(Fraction(whole + current))
    return [value / 2 for value in values] if half else values


class TextQuantity(NamedTuple):
    """A number as a text has it, in digits or in words, with its unit."""

    start: int
    end: int
    text: str
    values: frozenset[Fraction]
    """Both ends of a range; empty if the number can only be compared as text."""
    unit: str

    def is_among(self, others: Sequence["TextQuantity"]) -> bool:
        """Whether `others` contain this number, or both ends of this range, with the same unit if this one has a unit."""
        fit = [other for other in others if self.unit in ("", other.unit)]
        values = frozenset().union(*(other.values for other in fit))
        return any(self.text == other.text for other in fit) or (bool(self.values) and self.values <= values)


def distinct_quantities(text: str) -> list[TextQuantity]:
    """The numbers of a text with normalized spelling, each once."""
    return list({(number.text, number.unit): number for number in find_quantities(text)}.values())


def find_quantities(text: str) -> list[TextQuantity]:
    """The numbers of a text with normalized spelling, in their order. In a range, the first has the unit of the second."""
    quantities = list(_quantities_in_digits(text))
    taken = [(quantity.start, quantity.end) for quantity in quantities]
    lowered = text.lower()
    # Lower case has another length only in scripts without number words that are read here.
    for match in NUMBER_WORDS_RUN.finditer(lowered) if len(lowered) == len(text) else ():
        start, end, run = match.start(), match.end(), match.group()
        pronoun = run == "one" and (
            (1 not in read_written(lowered).numbers and not NON_NUMBER_AFTER.match(lowered, end))
            or (PRONOUN_ONE.search(lowered[max(0, start - 40) : start]) and not names_counted_thing(lowered, end))
        )
        if not pronoun and not any(start < taken_end and taken_start < end for taken_start, taken_end in taken):
            quantities.append(TextQuantity(start, end, run, read_written(run).numbers, _unit_after(text, end)))
    quantities.sort()
    for i, (quantity, after) in reversed(list(enumerate(pairwise(quantities)))):
        if not quantity.unit and RANGE_WORD.fullmatch(text[quantity.end : after.start]):
            quantities[i] = quantity._replace(unit=quantities[i + 1].unit)
    return quantities


def canonical_unit(word: str) -> str:
    """The canonical name of a unit; empty if `word` is not a unit."""
    return UNITS.get(word) or (UNITS.get(word.lower(), "") if len(word) > 1 else "")


def _quantities_in_digits(text: str) -> Iterator[TextQuantity]:
    for piece in re.finditer(r"\S+", text):
        core = _strip_outer_marks(piece.group())
        if not any(char.isnumeric() for char in core):
            continue
        start = piece.start() + piece.group().index(core)
        number, unit, end = core, "", start + len(core)
        if parts := PARTS.fullmatch(core):
            suffix = canonical_unit(parts["suffix"])
            if suffix or not parts["suffix"]:
                number, unit = parts["number"], suffix or canonical_unit(parts["money"])
        if (scale := FOLLOWING_UNIT.match(text, end)) and scale[1].lower() in SCALES:
            number, end = f"{number} {scale[1].lower()}", scale.end()
        if (core[0].isnumeric() or core[0] in f"{MONEY_SIGNS}.") and (
            minus := MINUS.search(text[max(0, start - 10) : start])
        ):
            number, start = f"-{number}", start - len(minus[0])
        readable = REWRITABLE_NUMBER.fullmatch(number) and not read_written(number).dates
        values = read_written(number).numbers if readable else frozenset()
        yield TextQuantity(start, end, number.casefold(), values, unit or _unit_after(text, end))


def names_counted_thing(text: str, end: int) -> bool:
    """Whether the word after a number that ends at `end` is the thing that it counts."""
    following = re.compile(r"[\s-]+([\w']+)").match(text, end)
    return following is not None and following[1].lower() not in FUNCTION_WORDS | DENIALS | CONTRAST_WORDS


def _unit_after(text: str, end: int) -> str:
    following = FOLLOWING_UNIT.match(text, end)
    return canonical_unit(following[1]) if following else ""
