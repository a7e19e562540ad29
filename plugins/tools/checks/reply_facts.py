"""The facts that a conversation gives, and those that a reply adds: numbers with units, days, times, names.

English. Strict about replies: each digit, day, time or name that cannot be read, or was not given, is a fault. Knows no
tool and no teacher.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from fractions import Fraction
from typing import Any

from agents.checks.text.quantities import COUNTS as COUNT_WORDS
from agents.checks.text.quantities import DATES, PARTIAL_DATE_PATTERNS, SCALES, month_number, read_written
from agents.checks.text.text_units import ENGLISH

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
WORD = re.compile(r"[^\W\d_](?:[\w'’\-]*\w)?")
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
    times: frozenset[time] = frozenset()


@dataclass
class ReplyFacts:
    """The facts that a reply states, and the faults of those that were not given."""

    numbers: set[Fraction] = field(default_factory=set)
    """Those without a unit."""
    amounts: set[tuple[Fraction, str]] = field(default_factory=set)
    days: set[date] = field(default_factory=set)
    times: set[time] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


def collect_known_facts(requests: Sequence[str], values: Sequence[Any], today: date) -> KnownFacts:
    """The facts in the users' requests, and in arguments and results."""
    spoken = TEXT_SEPARATOR.join(map(_normalize_unicode, requests))
    structured = TEXT_SEPARATOR.join(value_lines(values))
    spoken_facts, structured_facts = read_written(spoken), read_written(structured)
    amounts = {*_find_amounts(spoken), *_known_amounts(values)}
    amounts |= {(value / 60, "hours") for value, unit in amounts if unit == "minutes"}
    clock_times = {moment for match in TIME.finditer(f"{spoken}\n{structured}") for moment in _matched_times(match)}
    return KnownFacts(
        text=f"{spoken}{TEXT_SEPARATOR}{structured}",
        numbers=spoken_facts.numbers
        | frozenset(_known_numbers(values))
        | frozenset(value for value, _ in _find_amounts(spoken)),
        amounts=frozenset(amounts),
        days=find_days(spoken, today) | structured_facts.dates,
        times=spoken_facts.times | structured_facts.times | frozenset(clock_times),
    )


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


def _normalize_unicode(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("’", "'").replace("−", "-")


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


def _known_amounts(value: Any) -> Iterator[tuple[Fraction, str]]:
    if isinstance(value, dict):
        yield from ((Fraction(str(number)), unit) for number, unit in _iter_measures(value))
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _known_amounts(inner)


def _known_numbers(value: Any) -> Iterator[Fraction]:
    """Numbers without a unit; a reply must state other numbers with their unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield Fraction(str(value))
    elif isinstance(value, str):
        yield from read_written(value).numbers
    elif isinstance(value, dict):
        for key, inner in value.items():
            # The other fields tell whether a `value` or `amount` has a unit: a price of 15 EUR gives no stock of 15.
            units = {name: value[name] for name in UNIT_FIELDS if name in value and name != key}
            yield from () if [*_iter_measures({**units, key: inner})] else _known_numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _known_numbers(inner)


def _find_amounts(text: str) -> Iterator[tuple[Fraction, str]]:
    for match in AMOUNT.finditer(_blank_out(text, (*DATES, *PARTIAL_DATE_PATTERNS, TIME))):
        yield from ((_matched_number(match), unit) for unit in _matched_units(match))


def _matched_number(match: re.Match[str]) -> Fraction:
    value = Fraction(match["n"].replace(",", ""))
    return -value if match["sign"] else value


def _matched_units(match: re.Match[str]) -> frozenset[str]:
    before, after = (UNITS_BY_FORM.get((match[name] or "").lower(), frozenset()) for name in ("before", "after"))
    return before & after if before and after else before | after


def _matched_times(match: re.Match[str]) -> list[time]:
    if named := match["named"]:
        return [time(0) if named.lower() == "midnight" else time(12)]
    hour, minute = int(match["h"] or match["h24"]), int(match["m"] or match["m24"] or 0)
    half = (match["half"] or "").lower()
    if half and not 1 <= hour <= 12:
        return []
    hour = hour % 12 + (12 if half == "p" else 0) if half else hour
    return [time(hour, minute)] if hour < 24 and minute < 60 else []


def read_reply_facts(reply: str, known: KnownFacts, today: date) -> ReplyFacts:
    """The facts of a reply; `faults` has a sentence for each that was not given or cannot be read."""
    facts = ReplyFacts()
    text = _normalize_unicode(reply)
    if any(unicodedata.category(c) in HIDDEN_CATEGORIES and c not in "\n\t" for c in text):
        facts.faults.append("has hidden or joining characters; write plain text")
    if any(c.isnumeric() and not c.isascii() for c in reply):
        facts.faults.append("has numbers in characters other than 0 to 9")
    text = _check_days(text, known, today, facts)
    text = _check_times(text, known, facts)
    text = _check_codes(text, known, facts)
    text = _check_amounts(text, known, facts)
    _check_numbers_in_words(text, known, facts)
    _check_names(_normalize_unicode(reply), known, facts)
    return facts


def _check_days(text: str, known: KnownFacts, today: date, facts: ReplyFacts) -> str:
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
            weekdays = {WEEKDAYS.index(weekday[1].lower()) for weekday in (before, after) if weekday}
            _record_day(match.group(), {day for day in days if not weekdays or day.weekday() in weekdays}, facts)
        text = _blank_out(text, [pattern])
    for day, match in _relative_days(text, today):
        _record_day(match.group(), {day} & known.days, facts)
    text = _blank_out(text, [RELATIVE])
    for match in WEEKDAY.finditer(text):
        weekday = WEEKDAYS.index(match[1].lower())
        _record_day(match.group(), {day for day in known.days if day.weekday() == weekday}, facts)
    return _blank_out(text, [WEEKDAY])


def _record_day(words: str, days: Iterable[date], facts: ReplyFacts) -> None:
    days = set(days)
    if not days:
        facts.faults.append(f"says {words!r}, a day that neither the user nor a tool gave")
    if len(days) == 1:  # with two Fridays, the day is not stated
        facts.days |= days


def _check_times(text: str, known: KnownFacts, facts: ReplyFacts) -> str:
    for match in TIME.finditer(text):
        times = _matched_times(match)
        if times and times[0] in known.times:
            facts.times |= set(times)
        else:
            facts.faults.append(f"says {match.group()!r}, a time that neither the user nor a tool gave")
    return _blank_out(text, [TIME])


def _check_codes(text: str, known: KnownFacts, facts: ReplyFacts) -> str:
    """Check codes: pieces with letters and digits, other than numbers with units, must be given literally."""
    for piece in re.findall(r"\S+", text):
        bare = piece.strip(".,;:!?()[]\"'“”*_")
        code = re.search(r"\d", bare) and re.search(r"[^\W\d_]", bare) and not AMOUNT.fullmatch(bare)
        if code or re.search(r"\d[-/⁄+]\d", bare):
            if not read_written(known.text).contains_phrase(bare):
                facts.faults.append(f"says {bare!r}, which neither the user nor a tool gave")
            text = text.replace(bare, " " * len(bare), 1)
    return text


def _check_amounts(text: str, known: KnownFacts, facts: ReplyFacts) -> str:
    for match in AMOUNT.finditer(text):
        value, units = _matched_number(match), _matched_units(match)
        right = {(value, unit) for unit in units} & known.amounts
        if (match["before"] and match["after"] and not units) or not (right if units else value in known.numbers):
            facts.faults.append(f"says {match.group()!r}, which neither the user nor a tool gave")
            continue
        facts.numbers |= set() if units else {value}
        facts.amounts |= right
    rest = AMOUNT.sub(" ", text)
    if left := re.search(r"\S*[^\W\D]\S*", rest):
        facts.faults.append(f"says {left.group()[:40]!r}, which cannot be read as a number; write it plainly")
    return rest


def _check_numbers_in_words(text: str, known: KnownFacts, facts: ReplyFacts) -> None:
    numbers = read_written(ABSENT_ONE_PATTERN.sub(" ", text)).numbers
    facts.numbers |= numbers
    for number in sorted(numbers - known.numbers):
        facts.faults.append(f"says {float(number):g} in words, which neither the user nor a tool gave")
    for match in (*VAGUE_NUMBER_PATTERN.finditer(text), *COUNTED_UNIT_PATTERN.finditer(text)):
        if not read_written(known.text).contains_phrase(match.group()):
            facts.faults.append(f"says {match.group()!r}; give numbers and times in digits, as the tool gave them")


def _check_names(text: str, known: KnownFacts, facts: ReplyFacts) -> None:
    """Check words with a capital letter inside a sentence, and letters of scripts that the conversation lacks."""
    for word in _capitalized_words(text):
        if not read_written(known.text).contains_phrase(word):
            facts.faults.append(f"says {word!r}, a name that neither the user nor a tool gave")
    foreign = {c for c in text if c.isalpha() and "LATIN" not in unicodedata.name(c, "") and c not in "ªº"}
    if strange := foreign - set(known.text):
        facts.faults.append(f"has the letter {min(strange)!r} of another script")


def _capitalized_words(text: str) -> Iterator[str]:
    for match in WORD.finditer(text):
        word = re.sub(r"'s$", "", match.group())
        before = text[: match.start()].rstrip(" ")
        begins = (not before or before[-1] in SENTENCE_START_MARKS) and (
            word.lower() in SUBJECTS or not VERB.match(text, match.end())
        )
        ours = word.lower() in WEEKDAYS or word.lower() in MONTH_NAMES or word.lower() in ALWAYS_ALLOWED_WORDS
        if any(c.isupper() for c in word) and not begins and not ours:
            yield word
