"""The facts that a conversation gives, and those that a reply adds: numbers with units, days, times, names.

English. Strict about replies: each digit, day, time or name that cannot be read, or was not given, is a fault. Knows no
tool and no teacher.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from fractions import Fraction
from typing import Any

from agents.checks.text.quantities import COUNTS as COUNT_WORDS
from agents.checks.text.quantities import DATES, PARTIAL_DATE_PATTERNS, SCALES, month_number, read_written
from agents.checks.text.text_units import ENGLISH, loosen_text

UNITS: Mapping[str, Sequence[str]] = ENGLISH["amount_units"]
"""Spellings of units after a number; an ambiguous spelling belongs to both units."""
CURRENCY_BEFORE = "eur|usd|gbp|chf|nok|sek|jpy|us\\$|[€$£¥]"
UNITS_BY_FORM: Mapping[str, frozenset[str]] = {
    form: frozenset(unit for unit, forms in UNITS.items() if form in forms)
    for forms in UNITS.values()
    for form in forms
} | {"us$": frozenset({"USD"})}
UNIT_AFTER = "|".join(
    re.escape(form) + (r"(?![\w/])" if form[-1].isalpha() else "")
    for form in sorted(UNITS_BY_FORM, key=lambda f: (-len(f), f))
)
AMOUNT = re.compile(
    rf"(?<![\w.,:/⁄+\-<>≤≥~≈±])(?:(?P<before>{CURRENCY_BEFORE})\s?)?(?P<sign>[-−]\s?|minus |negative )?"
    r"(?P<n>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    rf"(?![\d,]\d|\.\d)(?:[ -]?(?P<after>{UNIT_AFTER}))?(?![\w%°€$£¥]|[:/⁄+\-]\w|[.,]\d|\s?[^\W\d_]+/)",
    re.IGNORECASE,
)
SUFFIXES = {"_c": "celsius", "_kmh": "kmh", "_km": "kilometre", "_percent": "percent", "_eur": "EUR"}
"""Suffixes of field names, with the unit of the field's number."""
MEASURES = ("value", "amount")
UNIT_FIELDS = ("unit", "from_unit", "currency", "from_currency")

WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
WEEKDAY = re.compile(rf"\b({'|'.join(WEEKDAYS)})(?:s|'s)?\b", re.IGNORECASE)
UNSURE_DAY = re.compile(r",?\s+(?:the\s+)?\d{1,2}(?:st|nd|rd|th)\b", re.IGNORECASE)
WEEKDAY_WINDOW = 6
"""Maximum number of characters between a weekday and its date: `, the `, ` (a `."""
UNSURE_CONTEXT = re.compile(r"\b(?:next|last|every|each|past|previous)\s+$", re.IGNORECASE)
RELATIVE = re.compile(
    r"\b(?:(?P<after>(?:the )?day after tomorrow)|(?P<before>(?:the )?day before yesterday)|(?P<tomorrow>tomorrow)"
    r"|(?P<yesterday>yesterday)|(?P<today>today|tonight|this (?:morning|afternoon|evening))"
    r"|in (?P<n>\d{1,2}|two|three|four|five|six|seven) days)\b",
    re.IGNORECASE,
)
STEPS = {"after": 2, "before": -2, "tomorrow": 1, "yesterday": -1, "today": 0}
TIME = re.compile(
    r"(?<![\w.,:/\-])(?P<h>\d{1,2})(?:[:.](?P<m>\d{2}))?\s?(?P<half>[ap])\.?m\b\.?"
    r"|(?<![\w.,:/\-])(?P<h24>\d{1,2}):(?P<m24>\d{2})(?::00)?(?!\w|[:.,/\-]\d)|\b(?P<named>noon|midday|midnight)\b",
    re.IGNORECASE,
)
HOURS = "|".join([*COUNT_WORDS][1:13])
FULL_HOUR = re.compile(rf"(?<![\w.,:/\-])(?<!past )(?<!quarter to )(\d{{1,2}}|{HOURS})\s?o'clock\b", re.IGNORECASE)
CODE_NUMBER = re.compile(r"(?<![\d.,:])\d{3,}(?![.,:]?\d)")
"""Part of a code or a telephone number, in which it may be written alone: 4187 in 555-4187."""
VAGUE_NUMBER_PATTERN = re.compile(
    rf"\bo'clock\b|\b(?:half|quarter|minutes?|{HOURS}|twenty)\s+(?:past|to)\s+(?:\d|{HOURS})|\bpoint\s+(?:{HOURS}|zero)\b"
    r"|\b(?:thirds?|halves|half|quarters?|fifths?|twice|thrice|doubled?|doubles|triple|dozens?|couple)\b",
    re.IGNORECASE,
)
"""Times and fractions in words, which are not read."""
COUNTED_UNIT_PATTERN = re.compile(rf"\b(?:{'|'.join([*COUNT_WORDS, *SCALES])})[ -](?:{UNIT_AFTER})", re.IGNORECASE)
"""A number in words with its unit; the unit of one of two numbers can only be read with digits."""
NO_DAY = date(2001, 1, 1)
"""Used as today's date in conversations without one, those with the user's own tools: `tomorrow` in a reply is known only if the
user said it too."""
TEXT_SEPARATOR = "\n;\n"
"""Between texts from different places: 8 next to 295 may be read as 8,295."""
HIDDEN_CATEGORIES = ("Cf", "Cc", "Co", "Cn", "Mn", "Me")
"""Categories of characters that change a text invisibly."""
ABSENT_ONE_PATTERN = re.compile(
    r"(?:\b(?:not|cannot|never)|n't)\b(?:\s+[a-z]+){0,2}\s+(?:find|get|have|locate|offer|see)\s+one(?=\s*(?:[.,;:!?]|$))",
    re.IGNORECASE,
)
"""`one` as a pronoun that counts nothing: `I couldn't find one`."""
MONTH_NAMES = frozenset("january february march april may june july august september october november december".split())
ALWAYS_ALLOWED_WORDS = frozenset(
    "i i'm i've i'll i'd ok okay am pm a.m p.m celsius fahrenheit c f km l us eur usd gbp chf nok sek jpy swiss british "
    "norwegian swedish japanese euro euros id".split()
)
WORD = re.compile(r"(?<![^\W_])[^\W\d_](?:[\w'’\-]*\w)?")
VERB = re.compile(
    r"(?:'s)?\s+(?:gets?|has|have|had|is|are|was|were|will|would|can|costs?|sees?|expects?|lies|stays?)\b"
)
SUBJECTS = frozenset(
    "it there that this these those which what who you we they he she all both each everyone everybody everything nothing one "
    "none today tomorrow here your our the a an where when how why whose neither some most many nobody no wind winds humidity "
    "temperature temperatures sky skies rain snow fog clouds showers delivery shipping price stock distance travel".split()
)
"""Words that a sentence may begin with and a verb follow, without being a name."""
SENTENCE_START_MARKS = ".!?:;\n•*(\"“'‘-–—"


@dataclass(frozen=True)
class KnownFacts:
    """The facts that a conversation gives. `text` contains all of them as words."""

    text: str = ""
    numbers: frozenset[Fraction] = frozenset()
    amounts: frozenset[tuple[Fraction, str]] = frozenset()
    days: frozenset[date] = frozenset()
    weekdays: frozenset[str] = frozenset()
    times: frozenset[time] = frozenset()


def collect_known_facts(requests: Sequence[str], values: Sequence[Any], today: date) -> KnownFacts:
    """The facts in the users' requests, and in arguments and results.

    A tool's fields do not say which unit their numbers have, so any may follow. Parts of codes count as numbers without a unit.
    """
    text = TEXT_SEPARATOR.join(map(_normalize_spelling, [*requests, *value_lines(values)]))
    amounts = frozenset(_find_amounts(text))
    numbers = read_written(text).numbers | {number for value in values for number in _iter_numbers(value)}
    numbers |= {value for value, _ in amounts}
    days = find_days(text, today)
    dated = read_written(text).dates if today == NO_DAY else days  # without a date, `today` is no weekday
    return KnownFacts(
        text=text,
        numbers=numbers | set(map(Fraction, CODE_NUMBER.findall(text))),
        amounts=frozenset((number, unit) for number in numbers for unit in UNITS)
        | {(value / 60, "hours") for value, unit in amounts if unit == "minutes"},
        days=days,
        weekdays=frozenset(WEEKDAYS[day.weekday()] for day in dated) | find_weekdays(text),
        times=find_clock_times(text),
    )


def find_clock_times(text: str) -> frozenset[time]:
    """The times of day that a text names. One without its half of the day is that of the 24-hour clock."""
    text = _normalize_spelling(text)
    return read_written(text).times | {moment for match in TIME.finditer(text) for moment in matched_times(match)}


def append_dates(text: str, today: date) -> str:
    """`text`, followed by the dates of days that it names in other words: `tomorrow`, `Friday`, `4 May`."""
    return TEXT_SEPARATOR.join([text, *(day.isoformat() for day in sorted(find_days(text, today)))])


def value_lines(value: Any) -> Iterator[str]:
    """JSON as lines of text, a number with its unit."""
    if isinstance(value, dict):
        yield from (f"{number} {unit}" for number, unit in _iter_measures(value))
        for inner in value.values():
            yield from value_lines(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from value_lines(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _normalize_spelling(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("−", "-")
    return FULL_HOUR.sub(lambda match: f"{COUNT_WORDS.get(match[1].lower(), match[1])}:00", text)


def find_days(text: str, today: date) -> frozenset[date]:
    """Days written with their year; days without a year, as the next such day; days relative to today.

    `next Friday` is ambiguous and is not read.
    """
    days = set(read_written(text).dates)
    rest = _blank_out(text, DATES)
    dated = [match for pattern in DATES for match in pattern.finditer(text)]
    for pattern in PARTIAL_DATE_PATTERNS:
        for match in pattern.finditer(rest):
            dated.append(match)
            days |= {day for day in [_next_date(match, today)] if day}
    for match in WEEKDAY.finditer(rest):
        dated_nearby = any(
            -WEEKDAY_WINDOW <= match.start() - date_match.end() <= WEEKDAY_WINDOW for date_match in dated
        )
        dated_nearby |= any(
            -WEEKDAY_WINDOW <= date_match.start() - match.end() <= WEEKDAY_WINDOW for date_match in dated
        )
        unsure = UNSURE_CONTEXT.search(rest[: match.start()][-12:]) or UNSURE_DAY.match(rest, match.end())
        if not (dated_nearby or unsure or match.group().lower().endswith("ys")):  # `Mondays` are no day
            days.add(today + timedelta(days=(WEEKDAYS.index(match[1].lower()) - today.weekday() - 1) % 7 + 1))
    return frozenset({*days, *(day for day, _ in _relative_days(rest, today))})


def find_weekdays(text: str) -> set[str]:
    return {match[1].lower() for match in WEEKDAY.finditer(text)}


def _relative_days(text: str, today: date) -> Iterator[tuple[date, re.Match[str]]]:
    for match in RELATIVE.finditer(text):
        name = match.lastgroup or "n"
        count = match["n"]
        steps = STEPS[name] if count is None else COUNT_WORDS.get(count.lower()) or int(count)
        yield today + timedelta(days=steps), match


def _next_date(match: re.Match[str], today: date) -> date | None:
    day, month = int(match["d"]), month_number(match["m"])
    for year in (today.year, today.year + 1):
        try:
            if (next_day := date(year, month, day)) >= today:
                return next_day
        except ValueError:
            continue
    return None


def _blank_out(text: str, patterns: Iterable[re.Pattern[str]]) -> str:
    for pattern in patterns:
        text = pattern.sub(lambda match: " " * len(match.group()), text)
    return text


def _iter_measures(value: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """The numbers with a unit among the values of an object."""
    units = [value[name] for name in UNIT_FIELDS if isinstance(value.get(name), str)]
    for key, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        yield from ((number, unit) for suffix, unit in SUFFIXES.items() if key.endswith(suffix))
        yield from ((number, key) for name in ("hours", "minutes") if key == name)
        yield from ((number, unit) for unit in units[:1] if key in MEASURES)


def _iter_numbers(value: Any) -> Iterator[Fraction]:
    """The numbers of a value, and how many things its lists have."""
    if isinstance(value, dict | list | tuple):
        yield from () if isinstance(value, dict) else (Fraction(len(value)),)
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _iter_numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield Fraction(str(value))
    elif isinstance(value, str):
        yield from read_written(value).numbers


def _find_amounts(text: str) -> Iterator[tuple[Fraction, str]]:
    for match in AMOUNT.finditer(_blank_out(text, (*DATES, *PARTIAL_DATE_PATTERNS, TIME))):
        yield from ((_matched_number(match), unit) for unit in _matched_units(match))


def _matched_number(match: re.Match[str]) -> Fraction:
    value = Fraction(match["n"].replace(",", ""))
    return -value if match["sign"] else value


def _matched_units(match: re.Match[str]) -> frozenset[str]:
    before, after = (UNITS_BY_FORM.get((match[name] or "").lower(), frozenset()) for name in ("before", "after"))
    return before & after if before and after else before | after


def matched_times(match: re.Match[str]) -> list[time]:
    if named := match["named"]:
        return [time(0) if named.lower() == "midnight" else time(12)]
    hour, minute = int(match["h"] or match["h24"]), int(match["m"] or match["m24"] or 0)
    half = (match["half"] or "").lower()
    if half and not 1 <= hour <= 12:
        return []
    hour = hour % 12 + (12 if half == "p" else 0) if half else hour
    return [time(hour, minute)] if hour < 24 and minute < 60 else []


def find_unsupported_facts(reply: str, known: KnownFacts, today: date) -> list[str]:
    """A sentence for each fact of a reply that was not given or cannot be read."""
    faults: list[str] = []
    text = _normalize_spelling(reply)
    if any(unicodedata.category(c) in HIDDEN_CATEGORIES and c not in "\n\t" for c in text):
        faults.append("has hidden or joining characters; write plain text")
    if any(c.isnumeric() and not c.isascii() for c in reply):
        faults.append("has numbers in characters other than 0 to 9")
    text = _check_days(text, known, today, faults)
    text = _check_times(text, known, faults)
    text = _check_codes(text, known, faults)
    text = _check_amounts(text, known, faults)
    _check_numbers_in_words(text, known, faults)
    _check_names(_normalize_spelling(reply), known, faults)
    return faults


def _check_days(text: str, known: KnownFacts, today: date, faults: list[str]) -> str:
    unknown: list[str] = []
    for pattern in (*DATES, *PARTIAL_DATE_PATTERNS):
        for match in pattern.finditer(text):
            if pattern in PARTIAL_DATE_PATTERNS:
                day_and_month = (int(match["d"]), month_number(match["m"]))
                days = frozenset(day for day in known.days if (day.day, day.month) == day_and_month)
            else:
                days = read_written(match.group()).dates
                days = days if days <= known.days else frozenset()  # of two dates, none if one is unknown
            # A weekday written next to the date must be the date's.
            before = re.search(rf"({'|'.join(WEEKDAYS)}),?\s+(?:the\s+)?$", text[: match.start()][-16:], re.I)
            after = re.match(rf",?\s+(?:a\s+)?\(?({'|'.join(WEEKDAYS)})\b", text[match.end() :][:16], re.I)
            written = {WEEKDAYS.index(weekday[1].lower()) for weekday in (before, after) if weekday}
            if not any(not written or day.weekday() in written for day in days):
                unknown.append(match.group())
        text = _blank_out(text, [pattern])
    unknown += [match.group() for day, match in _relative_days(text, today) if day not in known.days]
    text = _blank_out(text, [RELATIVE])
    unknown += [match.group() for match in WEEKDAY.finditer(text) if match[1].lower() not in known.weekdays]
    faults += [f"says {words!r}, a day that neither the user nor a tool gave" for words in unknown]
    return _blank_out(text, [WEEKDAY])


def _check_times(text: str, known: KnownFacts, faults: list[str]) -> str:
    for match in TIME.finditer(text):
        if known.times.isdisjoint(matched_times(match)):
            faults.append(f"says {match.group()!r}, a time that neither the user nor a tool gave")
    return _blank_out(text, [TIME])


def _check_codes(text: str, known: KnownFacts, faults: list[str]) -> str:
    """Check codes: pieces with letters and digits, other than numbers with units, must be given literally."""
    for piece in re.findall(r"\S+", text):
        bare = piece.strip(".,;:!?()[]\"'“”*_")
        code = re.search(r"\d", bare) and re.search(r"[^\W\d_]", bare) and not AMOUNT.fullmatch(bare)
        if code or re.search(r"\d[-/⁄+]\d", bare):
            if not read_written(known.text).contains_phrase(bare):
                faults.append(f"says {bare!r}, which neither the user nor a tool gave")
            text = text.replace(bare, " " * len(bare), 1)
    return text


def _check_amounts(text: str, known: KnownFacts, faults: list[str]) -> str:
    for match in AMOUNT.finditer(text):
        value, units = _matched_number(match), _matched_units(match)
        given = value in known.numbers if not units else any((value, unit) in known.amounts for unit in units)
        if not given or (match["before"] and match["after"] and not units):
            faults.append(f"says {match.group()!r}, which neither the user nor a tool gave")
    rest = AMOUNT.sub(" ", text)
    if left := re.search(r"\S*[^\W\D]\S*", rest):
        faults.append(f"says {left.group()[:40]!r}, which cannot be read as a number; write it plainly")
    return rest


def _check_numbers_in_words(text: str, known: KnownFacts, faults: list[str]) -> None:
    for number in sorted(read_written(ABSENT_ONE_PATTERN.sub(" ", text)).numbers - known.numbers):
        faults.append(f"says {float(number):g} in words, which neither the user nor a tool gave")
    for match in (*VAGUE_NUMBER_PATTERN.finditer(text), *COUNTED_UNIT_PATTERN.finditer(text)):
        if not read_written(loosen_text(known.text)).contains_phrase(loosen_text(match.group())):
            faults.append(f"says {match.group()!r}; give numbers and times in digits, as the tool gave them")


def _check_names(text: str, known: KnownFacts, faults: list[str]) -> None:
    """Check words with a capital letter inside a sentence, and letters of scripts that the conversation lacks."""
    for word in _capitalized_words(text):
        if not read_written(known.text).contains_phrase(word):
            faults.append(f"says {word!r}, a name that neither the user nor a tool gave")
    foreign = {c for c in text if c.isalpha() and "LATIN" not in unicodedata.name(c, "") and c not in "ªº"}
    if strange := foreign - set(known.text):
        faults.append(f"has the letter {min(strange)!r} of another script")


def _capitalized_words(text: str) -> Iterator[str]:
    for match in WORD.finditer(text):
        word = re.sub(r"'s$", "", match.group())
        before = text[: match.start()].rstrip(" ")
        begins = (not before or before[-1] in SENTENCE_START_MARKS) and (
            word.lower() in SUBJECTS or not VERB.match(text, match.end())
        )
        ours = WEEKDAY.fullmatch(word) or word.lower() in MONTH_NAMES or word.lower() in ALWAYS_ALLOWED_WORDS
        if any(c.isupper() for c in word) and not begins and not ours:
            yield word
