"""Reads dates and times of day from a text, in all their English spellings. One that can be read in two ways is not read."""

import re
from collections.abc import Iterator
from datetime import date, time

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
        last = next(_match_times(pair), None)
        if last is not None:
            yield last
            # The second time decides the half of the day: 6 to 8 pm begins at 18, 11 to 1 pm at 11.
            hour = int(pair["h1"])
            later = hour + 12 if hour < 12 else hour
            first = later if last.hour >= 12 and later <= last.hour else hour
            yield from _valid_time(first, int(pair["min1"] or 0))
    for clock in CLOCK.finditer(CLOCKS.sub(lambda match: "\0" * len(match.group()), text)):
        yield from _match_times(clock)
    yield from (NAMED_TIMES[word] for word in re.findall(r"\b(?:noon|midday|midnight)\b", text.lower()))


def _match_times(match: re.Match[str]) -> Iterator[time]:
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


SHORT_YEAR_DATE = re.compile(r"(?<![\w/.\-])(?P<a>\d{1,2})/(?P<b>\d{1,2})/(?P<y>\d{2})(?![\w/])")
LAST_YEAR_OF_2000S = 68
"""The last of two digits that are read as 20.., as POSIX does."""


def write_iso_values(text: str) -> str:
    """`text` with dates, days without a year, and times of day as ISO 8601 writes them: 2025-03-04, --03-04, 15:30. What can be
    read in two ways, and numbers that need not be times, stay as they are.
    """

    def write_date(match: re.Match[str]) -> str:
        days = list(match_dates(match))
        return days[0].isoformat() if len(days) == 1 else match[0]

    def write_day(match: re.Match[str]) -> str:
        return f"--{month_number(match['m']):02d}-{int(match['d']):02d}" if int(match["d"]) <= 31 else match[0]

    def write_time(match: re.Match[str]) -> str:
        found = list(_match_times(match))
        return found[0].isoformat("seconds" if found[0].second else "minutes") if found else match[0]

    def complete_year(match: re.Match[str]) -> str:
        year = int(match["y"]) + (2000 if int(match["y"]) <= LAST_YEAR_OF_2000S else 1900)
        return f"{match['a']}/{match['b']}/{year}"

    text = SHORT_YEAR_DATE.sub(complete_year, text)
    for patterns, write in ((DATES, write_date), (PARTIAL_DATE_PATTERNS, write_day), ((CLOCK,), write_time)):
        for pattern in patterns:
            text = pattern.sub(write, text)
    return text


def _valid_time(hour: int, minute: int, second: int = 0) -> Iterator[time]:
    if hour < 24 and minute < 60 and second < 60:
        yield time(hour, minute, second)
