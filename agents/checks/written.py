"""What a text says, in all the ways it may be written: words, numbers, dates and times of day.

English conventions. In doubt nothing is read: what is overlooked costs a sample, what is made up costs trust.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from fractions import Fraction
from functools import cached_property, lru_cache

FOLDED = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "‐": "-", "‑": "-", "–": "-", "—": " - "})
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
"""Scripts that put no spaces between words, or join particles to them: Thai, Lao, Burmese, Khmer, Chinese, Japanese, Korean."""
NOT = r"\b(?:no|not|non|never|without|neither|nor|hardly|cannot|\w+n't)\s+(?:an?\s+|the\s+|any\s+|yet\s+|very\s+)?$"

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

HALF = r"(?P<half>[ap])\.?m\b\.?"
LATER = r"\s+(?:in the (?P<part>morning|afternoon|evening)|(?P<night>at night|tonight))"
CLOCK = re.compile(
    rf"(?<![\w:.,/])(?<!\D-)(?P<h>\d{{1,2}})(?:[:.](?P<min>\d{{2}})(?::(?P<s>\d{{2}}))?)?"
    rf"(?:\s?{HALF}|\s?h(?:rs)?\b)?(?:{LATER})?(?![\w:]|[.,/]\d)",
    re.IGNORECASE,
)
CLOCKS = re.compile(
    rf"(?<![\w:.,/\-])(?P<h1>\d{{1,2}})(?:[:.](?P<min1>\d{{2}}))?\s*(?:-|–|—|to|until|till|and)\s*"
    rf"(?P<h>\d{{1,2}})(?:[:.](?P<min>\d{{2}}))?(?:\s?{HALF}|{LATER})(?!\w)",
    re.IGNORECASE,
)
NAMED_TIMES = {"noon": time(12), "midday": time(12), "midnight": time(0)}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT(\d\d):(\d\d)(?::(\d\d))?")

PHONE = re.compile(r"\+\d[\d ()/\-]{5,}\d")
PARTIAL = (re.compile(rf"\b{DAY}\s+(?:of\s+)?{MONTH}\b", re.I), re.compile(rf"\b{MONTH}\s+(?:the\s+)?{DAY}\b", re.I))
"""Days without a year: no date, and no number either."""
VULGAR = "½⅓⅔¼¾⅛⅜⅝⅞"
PLAIN = r"(?:(?:[1-9]\d{0,2}(?:[,'\u00a0\u202f]\d{3})+|0|[1-9]\d*)(?:\.\d+)?|\.\d+)"
COMMA = r"(?:(?:[1-9]\d{0,2}(?:\.\d{3})+|0|[1-9]\d*),\d{1,2})"
"""1,234.5 and, where it can be nothing else, 1.234,50; 1.234 is a little more than one."""
NUMBER = rf"(?:{COMMA}(?![\d,.])|{PLAIN})"
MONEY = r"(?:(?:US|AU?|CA?|NZ)?[€$£¥]|EUR|USD|GBP|CHF)"
LETTER = "[A-Za-zÀ-ɏµμΩ]"
"""Of units; for Python, ² and ½ are letters too."""
UNITS = "mglthsdwpkMVWL"
"""Letters that are a unit by themselves; 9a is a room."""
TOKEN = re.compile(
    rf"(?:[A-Za-z]+[:=])?(?P<sign>[-−]?)[+~≈<>≤≥#]?(?P<money>{MONEY}?)(?P<n>{NUMBER})(?P<vulgar>[{VULGAR}]?)"
    rf"(?:(?P<k>[kK]?)(?P<dash>[-–—]){MONEY}?(?P<n2>{NUMBER}))?"
    rf"(?!{LETTER}(?<![{UNITS}])(?!\w))(?P<suffix>(?:(?:{LETTER}|[%°€$£¥]){{1,12}}[²³]?)?|[ck]?m[23])"
    rf"(?:/{LETTER}+[²³]?)?(?:-[a-z]{{3,}})*"
)
SIZES = re.compile(rf"({NUMBER})[x×]({NUMBER})(?:[x×]({NUMBER}))?(?:[a-z]{{1,3}}|\")?")
FRACTION = re.compile(r"([1-9]\d?)/([1-9]\d?)")
CODE = re.compile(r"(?:^|[ /-])0\d|\b\d{3}-\d{4}\b|-\d+-|(?:^| )[1-9]\d{0,2} \d{3}\b")
MAX_PIECE = 100
"""Characters of a piece that can be a number; no number in a text has so many."""
OUTER = "()[]{}\"'“”„‘’*_|…;:!?,"
SCALES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "dozen": 12}
SHORT_SCALES = {"k": 1_000, "mn": 10**6, "mio": 10**6, "bn": 10**9}
PART = r"(?:thirds?|quarters?|hal(?:f|ves)|fifths?|sixths?|eighths?|tenths?|hundredths?)"
SUFFIXES = {"k": 1_000, "K": 1_000, "M": 10**6, "mn": 10**6, "Mio": 10**6, "bn": 10**9}
SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen".split()
    )
}
TENS = {word: 10 * (i + 2) for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())}
COUNTS = {**SMALL, **TENS}
RUN = re.compile(
    rf"(?<![\w'])(?:(?P<sign>minus|negative)\s)?(?P<run>(?:half )?(?:an?\s+(?={'|'.join(SCALES)}))?"
    rf"(?:{'|'.join([*COUNTS, *SCALES])})(?:(?:\s+and\s+|\s+|-)(?:{'|'.join([*COUNTS, *SCALES])})\b)*)(?![\w'])"
)
NO_COUNT = re.compile(r"\b(?:no|any|every|some|this|that|these|which|the|each|another|either|such)\s$")
"""Before `one` these make it no number."""
PAST = re.compile(r"\b(?:past|quarter to)\s$")
NOT_AFTER = re.compile(
    rf"[\s-](?:point|{PART}|and-a|past|o'clock|another|way|off|time|sided"
    r"|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)\b"
)
"""What makes a number word a part of something else: a fraction, an ordinal, a time."""


def folded(text: str) -> str:
    """`text` with case, white space, quotes and dashes made alike."""
    alike = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).translate(FOLDED)
    return " ".join(alike.split())


def loosened(text: str) -> str:
    """`text` folded, with hyphens and underscores as spaces."""
    return " ".join(re.sub(r"[-_]", " ", folded(text)).split())


@lru_cache(maxsize=64)
def read_text(text: str) -> "Written":
    return Written(text)


@dataclass(frozen=True)
class Written:
    """A text, and what is written in it."""

    text: str

    @cached_property
    def plain(self) -> str:
        return folded(self.text)

    @cached_property
    def loose(self) -> str:
        return loosened(self.text)

    @cached_property
    def dates(self) -> frozenset[date]:
        """Days written with their year, unless they can be read in two ways (03/05/2025)."""
        return frozenset(day for pattern in DATES for found in pattern.finditer(self.text) for day in _days(found))

    @cached_property
    def times(self) -> frozenset[time]:
        """Times of day. A time without am, pm or a part of the day counts as one of 24 hours."""
        return frozenset(_times(self.text))

    @cached_property
    def numbers(self) -> frozenset[Fraction]:
        """Numbers in digits and in words. The parts of dates (but for the year), times and telephone numbers are none."""
        rest = self.text
        for pattern in (*DATES, *PARTIAL, CLOCKS, CLOCK, PHONE):
            rest = pattern.sub(_masked, rest)
        years = {Fraction(day.year) for day in self.dates}
        return frozenset({*_in_digits(rest), *_in_words(folded(rest)), *years})

    def says(self, words: str) -> bool:
        """Whether `words` stand in the text as they are, whole, white space and case aside.

        A part of something joined by a hyphen, a point, a slash between digits or the like is not whole.
        """
        sought = folded(words)
        return bool(sought) and any(_whole(self.plain, at, at + len(sought)) for at in _places(self.plain, sought))

    def speaks_of(self, terms: Mapping[str, Iterable[str]]) -> set[str]:
        """Which keys have one of their terms in the text, longer terms first: `non-smoking` does not speak of `smoking`.

        A term after a denial (`no`, `not`, `without`) does not count.
        """
        left, found = self.loose, set()
        pairs = {(loosened(term), key) for key, some in terms.items() for term in some}
        for term in sorted({term for term, _ in pairs if term}, key=lambda term: (-len(term), term)):
            for at in _places(left, term):
                if not _apart(left, at, at + len(term)):
                    continue
                if not re.search(NOT, left[max(0, at - 40) : at]):
                    found |= {key for one, key in pairs if one == term}
                left = left[:at] + "\0" * len(term) + left[at + len(term) :]
        return found


def _places(text: str, sought: str) -> Iterator[int]:
    at = text.find(sought)
    while at >= 0:
        yield at
        at = text.find(sought, at + 1)


def _part_of_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")


def _apart(text: str, start: int, end: int) -> bool:
    """Whether no word goes over either edge of a span."""
    return not any(
        0 < edge < len(text)
        and _part_of_word(text[edge - 1])
        and _part_of_word(text[edge])
        and not UNSPACED.match(text[edge - 1])
        and not UNSPACED.match(text[edge])
        for edge in (start, end)
    )


def _whole(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 2) : start][::-1], text[end : end + 2]
    first, last = text[start], text[end - 1]
    if not _apart(text, start, end) or _joins(before, first) or _joins(after, last):
        return False
    signed = first.isdigit() and before[:1] in ("-", "+")
    owned = last.isalpha() and re.match(r"'[^\Ws]", after)
    named = first.isalpha() and re.match(r"'\w", before)
    return not (signed or owned or named)


def _joins(outside: str, edge: str) -> bool:
    """Whether the two characters outside an edge, nearest first, belong to what stands inside it."""
    if len(outside) < 2 or not _part_of_word(edge) or not _part_of_word(outside[1]):
        return False
    return outside[0] in "-@.&" or (outside[0] in ",:/'" and edge.isdigit() and outside[1].isdigit())


def _masked(found: re.Match[str]) -> str:
    is_time = found.re in (CLOCK, CLOCKS)
    keep = is_time and not list(_times(found.group()))
    return found.group() if keep else " " + "\0" * (len(found.group()) - 2) + " "


def _days(found: re.Match[str]) -> Iterator[date]:
    parts = found.groupdict()
    if "a" in parts:
        a, b = int(parts["a"]), int(parts["b"])
        if a != b and max(a, b) <= 12:
            return
        days, month = [max(a, b) if a != b else a], min(a, b)
    else:
        days = [int(parts["d"])]
        days += [first for first in [int(parts.get("d1") or 32)] if first < days[0]]
        month = int(parts["n"]) if "n" in parts else MONTHS.index(parts["m"][:3].lower()) + 1
    for day in days:
        try:
            yield date(int(parts["y"]), month, day)
        except ValueError:
            continue


def _times(text: str) -> Iterator[time]:
    for stamp in STAMP.finditer(text):
        yield from _time(int(stamp[1]), int(stamp[2]), int(stamp[3] or 0))
    for pair in CLOCKS.finditer(text):
        last = next(_read_clock(pair), None)
        if last is not None:
            yield last
            yield from _time(_first_hour(int(pair["h1"]), last), int(pair["min1"] or 0))
    for clock in CLOCK.finditer(CLOCKS.sub(lambda found: "\0" * len(found.group()), text)):
        yield from _read_clock(clock)
    yield from (NAMED_TIMES[word] for word in re.findall(r"\b(?:noon|midday|midnight)\b", text.lower()))


def _read_clock(found: re.Match[str]) -> Iterator[time]:
    hour, minute = int(found["h"]), found["min"]
    half = (found["half"] or "").lower()
    part = (found["part"] or found["night"] or "").lower()
    pm = half == "p" or part in ("afternoon", "evening", "at night", "tonight")
    am = half == "a" or part == "morning"
    pointed = minute is not None and ":" not in found.group()
    if not (pm or am) and (minute is None or pointed):
        return  # a bare number, or a decimal
    if half and not 1 <= hour <= 12:
        return
    if (pm and hour < 12) or (am and hour == 12):
        hour = (hour + 12) % 24
    yield from _time(hour, int(minute or 0), int(found.groupdict().get("s") or 0))


def _first_hour(hour: int, last: time) -> int:
    """The hour of the first time of a pair, by the second: 6 to 8 pm begins at 18, 11 to 1 pm at 11."""
    later = hour + 12 if hour < 12 else hour
    return later if last.hour >= 12 and later <= last.hour else hour


def _time(hour: int, minute: int, second: int = 0) -> Iterator[time]:
    if hour < 24 and minute < 60 and second < 60:
        yield time(hour, minute, second)


def _in_digits(text: str) -> Iterator[Fraction]:
    """Each piece between spaces is a number as a whole or none: B12, INV-1042, 5e3 and 2.3.1 are none."""
    pieces = [_bare(piece) for piece in re.split(r"[ \t\r\n\f\v]+", text.replace("’", "'"))]
    codes = _codes(pieces)
    for i, piece in enumerate(pieces):
        if piece and i not in codes:
            before = pieces[i - 1].lower() if i else ""
            sign = -1 if before in ("minus", "negative") else 1
            yield from (sign * value for value in _beside(before, piece, pieces[i + 1 : i + 4]))


def _beside(before: str, piece: str, after: Sequence[str]) -> list[Fraction]:
    """The numbers of a piece, by what stands beside it: 5 million, 1 1/2, 2 and a half; not 2 thirds or half past 7."""
    behind = after[0].lower() if after else ""
    if before == "past" or re.fullmatch(rf"{PART}|past|o'clock", behind):
        return []
    if FRACTION.fullmatch(piece) and before.isdigit():
        return []  # it was told with the number before
    values = _piece(piece)
    if piece.isdigit() and (part := FRACTION.fullmatch(behind)):
        return [int(piece) + Fraction(int(part[1]), int(part[2]))]
    if values and (half := re.fullmatch("and a (half|quarter)", " ".join(after).lower())):
        return [values[-1] + Fraction(1, 2 if half[1] == "half" else 4)]
    return [{**SCALES, **SHORT_SCALES}.get(behind, 1) * value for value in values]


def _bare(piece: str) -> str:
    """A piece without the marks around it; a point before digits stays."""
    while piece != (inner := piece.lstrip(OUTER).rstrip(OUTER + ".")):
        piece = inner
    return piece


def _codes(pieces: Sequence[str]) -> set[int]:
    """Which pieces belong to a telephone number or the like, or are written 1 200, which may be one number or two."""
    codes: set[int] = set()
    run: list[int] = []
    for i, piece in enumerate([*pieces, ""]):
        if piece and not piece.replace("-", "").replace("/", "").isdigit():
            piece = ""
        if piece:
            run.append(i)
            continue
        if CODE.search(" ".join(pieces[one] for one in run)):
            codes.update(run)
        run = []
    return codes


def _piece(piece: str) -> list[Fraction]:
    if len(piece) > MAX_PIECE:
        return []
    if piece in VULGAR and len(piece) == 1:
        return [_vulgar(piece)]
    if part := FRACTION.fullmatch(piece):
        return [Fraction(int(part[1]), int(part[2]))] if int(part[1]) < int(part[2]) else []
    if sizes := SIZES.fullmatch(piece):
        return [_value(size) for size in sizes.groups() if size] if not piece.startswith("0x") else []
    found = TOKEN.fullmatch(piece)
    return list(_token(found)) if found else []


def _token(found: re.Match[str]) -> Iterator[Fraction]:
    suffix = found["suffix"]
    scale = 10**6 if suffix == "m" and found["money"] else SUFFIXES.get(suffix, 1)
    first = _value(found["n"])
    if found["n2"] is None:
        value = first + (_vulgar(found["vulgar"]) if found["vulgar"] else 0)
        yield scale * (-value if found["sign"] else value)
        return
    last = _value(found["n2"])
    telephone = found["dash"] == "-" and len(found["n"]) == 3 and len(found["n2"]) == 4
    score = max(first, last) < 100
    if (first < last or score) and not telephone and not found["sign"] and not found["vulgar"]:
        yield from (first * (1_000 if found["k"] else scale), last * scale)


def _vulgar(character: str) -> Fraction:
    return Fraction(unicodedata.numeric(character)).limit_denominator(8)


def _value(number: str) -> Fraction:
    if re.fullmatch(COMMA, number):
        number = number.replace(".", "").replace(",", ".")
    return Fraction(re.sub(r"[,'\u00a0\u202f]", "", number))


def _in_words(text: str) -> Iterator[Fraction]:
    for found in RUN.finditer(text):
        before, after = text[: found.start()][-20:], text[found.end() :][:20]
        values = _spelled(re.split(r"\s+|-", found["run"]))
        if PAST.search(before):
            values = values[1:]
        if values and NOT_AFTER.match(after):
            values = values[: -2 if re.search(r" and \w+$", found["run"]) else -1]
        elif values and (part := re.match(r" and a (half|quarter)\b", after)):
            values[-1] += Fraction(1, 2 if part[1] == "half" else 4)
        pronoun = found["run"].startswith("one") and (NO_COUNT.search(before) or re.match(r" of\b", after))
        if (found["run"] == "one" and pronoun) or re.search(r"\d\s$", before):
            continue
        yield from (-value if found["sign"] else value for value in values)


def _spelled(words: Sequence[str]) -> list[Fraction]:
    """The numbers that a run of number words tells, one after the other."""
    values: list[Fraction] = []
    whole, current, open_ = 0, 0, False
    half = words[0] == "half"
    for word in words:
        if word in COUNTS:
            if open_ and not _adds(current, word):
                values.append(Fraction(whole + current))
                whole, current = 0, 0
            current, open_ = current + COUNTS[word], True
        elif word in ("hundred", "dozen"):
            current, open_ = (current if open_ or current else 1) * SCALES[word], True
        elif word in SCALES:
            whole, current, open_ = whole + (current or 1) * SCALES[word], 0, True
    values.append(Fraction(whole + current))
    return [value / 2 for value in values] if half else values


def _adds(current: int, word: str) -> bool:
    """Whether a number word goes on with a number: twenty and one, hundred and twelve, but not two and three."""
    if word in TENS or SMALL[word] >= 10:
        return current % 100 == 0
    return SMALL[word] > 0 and current % 10 == 0 and current % 100 != 10
