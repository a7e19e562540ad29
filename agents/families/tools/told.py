"""What a conversation gives, and what a reply states beyond it: numbers with their units, days, times, names.

English. Strict about replies: whatever has a digit, a day, a time or a name that cannot be read, or was not given, is a
fault. Knows no tool and no teacher.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from fractions import Fraction
from typing import Any

from agents.checks.written import COUNTS as COUNT_WORDS
from agents.checks.written import DATES, MONTHS, PARTIAL, SCALES, folded, read_text

UNITS: Mapping[str, tuple[str, ...]] = {
    "celsius": ("degrees celsius", "degree celsius", "celsius", "°c", "degrees", "degree", "°"),
    "fahrenheit": ("degrees fahrenheit", "degree fahrenheit", "fahrenheit", "°f", "degrees", "degree", "°"),
    "kmh": (
        "km/h", "kph", "kilometres per hour", "kilometers per hour", "kilometres an hour", "kilometers an hour",
        "km per hour", "km an hour",
    ),
    "kilometre": ("km", "kilometres", "kilometers", "kilometre", "kilometer"),
    "mile": ("mi", "miles", "mile"),
    "metre": ("m", "metres", "meters", "metre", "meter"),
    "foot": ("ft", "feet", "foot"),
    "kilogram": ("kg", "kilograms", "kilogram", "kilos", "kilo"),
    "pound": ("lb", "lbs", "pounds", "pound"),
    "litre": ("l", "litres", "liters", "litre", "liter"),
    "gallon": ("gal", "gallons", "gallon"),
    "percent": ("%", "percent", "per cent"),
    "hours": ("h", "hr", "hrs", "hours", "hour"),
    "minutes": ("min", "mins", "minutes", "minute"),
    "EUR": ("eur", "euros", "euro", "€"),
    "USD": ("usd", "us dollars", "us dollar", "dollars", "dollar", "$"),
    "GBP": ("gbp", "british pounds", "pounds", "pound", "pounds sterling", "£"),
    "CHF": ("chf", "swiss francs", "swiss franc", "francs", "franc"),
    "NOK": ("nok", "norwegian kroner", "norwegian crowns", "kroner"),
    "SEK": ("sek", "swedish kronor", "swedish crowns", "kronor"),
    "JPY": ("jpy", "japanese yen", "yen", "¥"),
}  # fmt: skip
"""How units are written after a number; one that could be two of them is both."""
BEFORE = "eur|usd|gbp|chf|nok|sek|jpy|us\\$|[€$£¥]"
MEANT: Mapping[str, frozenset[str]] = {
    form: frozenset(unit for unit, forms in UNITS.items() if form in forms)
    for forms in UNITS.values()
    for form in forms
} | {"us$": frozenset({"USD"})}
AFTER = "|".join(
    re.escape(form) + (r"(?![\w/])" if form[-1].isalpha() else "") for form in sorted(MEANT, key=lambda f: (-len(f), f))
)
AMOUNT = re.compile(
    rf"(?<![\w.,:/⁄+\-<>≤≥~≈±])(?:(?P<before>{BEFORE})\s?)?(?P<sign>[-−]\s?|minus |negative )?"
    r"(?P<n>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    rf"(?![\d,]\d|\.\d)(?:[ -]?(?P<after>{AFTER}))?(?![\w%°€$£¥]|[:/⁄+\-]\w|[.,]\d|\s?[^\W\d_]+/)",
    re.IGNORECASE,
)
SUFFIXES = {"_c": "celsius", "_kmh": "kmh", "_km": "kilometre", "_percent": "percent", "_eur": "EUR"}
"""Of the names of fields: the unit of their number."""
MEASURES = ("value", "amount")
UNIT_FIELDS = ("unit", "from_unit", "currency", "from_currency")

WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
WEEKDAY = re.compile(rf"\b({'|'.join(WEEKDAYS)})(?:s|'s)?\b", re.IGNORECASE)
UNSURE_DAY = re.compile(r",?\s+(?:the\s+)?\d{1,2}(?:st|nd|rd|th)\b", re.IGNORECASE)
BESIDE = 6
"""Characters between a weekday and its date, at the most: `, the `, ` (a `."""
UNSURE = re.compile(r"\b(?:next|last|every|each|past|previous)\s+$", re.IGNORECASE)
RELATIVE = re.compile(
    r"\b(?:(?P<after>(?:the )?day after tomorrow)|(?P<before>(?:the )?day before yesterday)|(?P<tomorrow>tomorrow)"
    r"|(?P<yesterday>yesterday)|(?P<today>today|tonight|this (?:morning|afternoon|evening))"
    r"|in (?P<n>\d{1,2}|two|three|four|five|six|seven) days)\b",
    re.IGNORECASE,
)
STEPS = {"after": 2, "before": -2, "tomorrow": 1, "yesterday": -1, "today": 0}
COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
TIME = re.compile(
    r"(?<![\w.,:/\-])(?P<h>\d{1,2})(?:[:.](?P<m>\d{2}))?\s?(?P<half>[ap])\.?m\b\.?"
    r"|(?<![\w.,:/\-])(?P<h24>\d{1,2}):(?P<m24>\d{2})(?::00)?(?!\w|[:.,/\-]\d)|\b(?P<named>noon|midday|midnight)\b",
    re.IGNORECASE,
)
HOURS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
VAGUE = re.compile(
    rf"\bo'clock\b|\b(?:half|quarter|minutes?|{HOURS}|twenty)\s+(?:past|to)\s+(?:\d|{HOURS})|\bpoint\s+(?:{HOURS}|zero)\b"
    r"|\b(?:thirds?|halves|half|quarters?|fifths?|twice|thrice|doubled?|doubles|triple|dozens?|couple)\b",
    re.IGNORECASE,
)
"""Times and parts in words, which are not read."""
COUNTED = re.compile(rf"\b(?:{'|'.join([*COUNT_WORDS, *SCALES])})[ -](?:{AFTER})", re.IGNORECASE)
"""A number in words with its unit; which of two numbers has the unit is only told from digits."""
BETWEEN = "\n;\n"
"""Between things that were not said together: 8 and 295 beside each other may be 8,295."""
HIDDEN = ("Cf", "Cc", "Co", "Cn", "Mn", "Me")
"""Categories of characters that change a text without being seen as one."""
MONTH_NAMES = frozenset("january february march april may june july august september october november december".split())
OF_NOBODY = frozenset(
    "i i'm i've i'll i'd ok okay am pm a.m p.m celsius fahrenheit c f km l us eur usd gbp chf nok sek jpy swiss british "
    "norwegian swedish japanese euro euros id".split()
)
WORD = re.compile(r"[^\W\d_](?:[\w'’\-]*\w)?")
VERB = re.compile(
    r"(?:'s)?\s+(?:gets?|has|have|had|is|are|was|were|will|would|can|costs?|sees?|expects?|lies|stays?)\b"
)
SUBJECTS = frozenset(
    "it there that this these those which what who you we they he she all both each everyone everybody everything nothing one "
    "none today tomorrow here your our the a an".split()
)
"""Words that a sentence may begin with and a verb follow, without being a name."""
STARTS = ".!?:;\n•*(\"“'‘-–—"


@dataclass(frozen=True)
class Given:
    """What a conversation gives. `text` is all of it in words."""

    text: str = ""
    numbers: frozenset[Fraction] = frozenset()
    amounts: frozenset[tuple[Fraction, str]] = frozenset()
    days: frozenset[date] = frozenset()
    times: frozenset[time] = frozenset()


@dataclass
class Stated:
    """What a reply states, and what of it was not given."""

    numbers: set[Fraction] = field(default_factory=set)
    """Those without a unit."""
    amounts: set[tuple[Fraction, str]] = field(default_factory=set)
    days: set[date] = field(default_factory=set)
    times: set[time] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


def given(requests: Sequence[str], values: Sequence[Any], today: date) -> Given:
    """All that stands in what users said, and in arguments and results."""
    spoken = BETWEEN.join(map(unicode_plain, requests))
    structured = BETWEEN.join(lines_of(values))
    said, noted = read_text(spoken), read_text(structured)
    amounts = {*_amounts_in(spoken), *_amounts_of(values)}
    amounts |= {(value / 60, "hours") for value, unit in amounts if unit == "minutes"}
    return Given(
        text=f"{spoken}{BETWEEN}{structured}",
        numbers=said.numbers | frozenset(_numbers_of(values)) | frozenset(value for value, _ in _amounts_in(spoken)),
        amounts=frozenset(amounts),
        days=days_in(spoken, today) | noted.dates,
        times=said.times | noted.times | frozenset(_clocks_in(f"{spoken}\n{structured}")),
    )


def spelled_out(text: str, today: date) -> str:
    """`text` with the days that it tells by other words as dates after it: `tomorrow`, `Friday`, `4 May`."""
    return BETWEEN.join([text, *(day.isoformat() for day in sorted(days_in(text, today)))])


def lines_of(value: Any) -> Iterator[str]:
    """JSON as lines of text, a number with its unit."""
    if isinstance(value, dict):
        yield from (f"{number} {unit}" for number, unit in _measures(value))
        for inner in value.values():
            yield from lines_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from lines_of(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def unicode_plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("’", "'").replace("−", "-")


def days_in(text: str, today: date) -> frozenset[date]:
    """Days told with their year; without it, those next to come; and those told by their distance from today.

    `next Friday` can be read in two ways and is not read.
    """
    found = set(read_text(text).dates)
    rest = _without(text, DATES)
    dated = [match for pattern in DATES for match in pattern.finditer(text)]
    for pattern in PARTIAL:
        for match in pattern.finditer(rest):
            dated.append(match)
            found |= {day for day in [_coming(match, today)] if day}
    for match in WEEKDAY.finditer(rest):
        beside = any(-BESIDE <= match.start() - one.end() <= BESIDE for one in dated)
        beside |= any(-BESIDE <= one.start() - match.end() <= BESIDE for one in dated)
        unsure = UNSURE.search(rest[: match.start()][-12:]) or UNSURE_DAY.match(rest, match.end())
        if not (beside or unsure or match.group().endswith("s")):
            found.add(today + timedelta(days=(WEEKDAYS.index(match[1].lower()) - today.weekday() - 1) % 7 + 1))
    return frozenset({*found, *(day for day, _ in _relative(rest, today))})


def _relative(text: str, today: date) -> Iterator[tuple[date, re.Match[str]]]:
    for match in RELATIVE.finditer(text):
        name = match.lastgroup or "n"
        count = match["n"]
        steps = STEPS[name] if count is None else COUNTS.get(count.lower()) or int(count)
        yield today + timedelta(days=steps), match


def _coming(match: re.Match[str], today: date) -> date | None:
    day, month = int(match["d"]), MONTHS.index(match["m"][:3].lower()) + 1
    for year in (today.year, today.year + 1):
        try:
            if (found := date(year, month, day)) >= today:
                return found
        except ValueError:
            continue
    return None


def _without(text: str, patterns: Iterable[re.Pattern[str]]) -> str:
    for pattern in patterns:
        text = pattern.sub(lambda match: " " * len(match.group()), text)
    return text


def _measures(value: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """The numbers that stand directly in an object and have a unit."""
    units = [value[name] for name in UNIT_FIELDS if isinstance(value.get(name), str)]
    for key, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        yield from ((number, unit) for suffix, unit in SUFFIXES.items() if key.endswith(suffix))
        yield from ((number, key) for name in ("hours", "minutes") if key == name)
        yield from ((number, unit) for unit in units[:1] if key in MEASURES)


def _amounts_of(value: Any) -> Iterator[tuple[Fraction, str]]:
    if isinstance(value, dict):
        yield from ((Fraction(str(number)), unit) for number, unit in _measures(value))
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _amounts_of(inner)


def _numbers_of(value: Any) -> Iterator[Fraction]:
    """Numbers that have no unit; those that have one are only told with it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield Fraction(str(value))
    elif isinstance(value, str):
        yield from read_text(value).numbers
    elif isinstance(value, dict):
        measured = [number for number, _ in _measures(value)]
        for inner in value.values():
            yield from () if any(inner is number for number in measured) else _numbers_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers_of(inner)


def _amounts_in(text: str) -> Iterator[tuple[Fraction, str]]:
    for match in AMOUNT.finditer(_without(text, (*DATES, *PARTIAL, TIME))):
        yield from ((_number(match), unit) for unit in _units(match))


def _number(match: re.Match[str]) -> Fraction:
    value = Fraction(match["n"].replace(",", ""))
    return -value if match["sign"] else value


def _units(match: re.Match[str]) -> frozenset[str]:
    before, after = (MEANT.get((match[name] or "").lower(), frozenset()) for name in ("before", "after"))
    return before & after if before and after else before | after


def _clocks_in(text: str) -> Iterator[time]:
    for match in TIME.finditer(text):
        yield from _clock(match)


def _clock(match: re.Match[str]) -> list[time]:
    if named := match["named"]:
        return [time(0) if named.lower() == "midnight" else time(12)]
    hour, minute = int(match["h"] or match["h24"]), int(match["m"] or match["m24"] or 0)
    half = (match["half"] or "").lower()
    if half and not 1 <= hour <= 12:
        return []
    hour = hour % 12 + (12 if half == "p" else 0) if half else hour
    return [time(hour, minute)] if hour < 24 and minute < 60 else []


def stated(reply: str, known: Given, today: date) -> Stated:
    """What a reply states; `faults` has, a sentence each, what of it was not given or cannot be read."""
    found = Stated()
    text = unicode_plain(reply)
    if any(unicodedata.category(c) in HIDDEN and c not in "\n\t" for c in text):
        found.faults.append("has hidden or joining characters; write plain text")
    if any(c.isnumeric() and not c.isascii() for c in reply):
        found.faults.append("has numbers in characters other than 0 to 9")
    text = _days(text, known, today, found)
    text = _times(text, known, found)
    text = _codes(text, known, found)
    text = _amounts(text, known, found)
    _in_words(text, known, found)
    _names(unicode_plain(reply), known, found)
    return found


def _days(text: str, known: Given, today: date, found: Stated) -> str:
    for pattern in (*DATES, *PARTIAL):
        for match in pattern.finditer(text):
            named = {on for on in known.days if on.weekday() in _weekdays_beside(text, match)}
            _day(match.group(), _meant(match, known) & named, found)
        text = _without(text, [pattern])
    for day, match in _relative(text, today):
        _day(match.group(), {day} & known.days, found)
    text = _without(text, [RELATIVE])
    for match in WEEKDAY.finditer(text):
        _day(match.group(), {on for on in known.days if on.weekday() == WEEKDAYS.index(match[1].lower())}, found)
    return _without(text, [WEEKDAY])


def _meant(match: re.Match[str], known: Given) -> frozenset[date]:
    """The known days that a date means; none where one of two dates is not known."""
    if match.re in PARTIAL:
        day, month = int(match["d"]), MONTHS.index(match["m"][:3].lower()) + 1
        return frozenset(on for on in known.days if (on.day, on.month) == (day, month))
    days = read_text(match.group()).dates
    return days if days <= known.days else frozenset()


def _weekdays_beside(text: str, match: re.Match[str]) -> set[int]:
    """The weekdays that are said to be that of a date: the one beside it, or any."""
    beside = [re.search(rf"({'|'.join(WEEKDAYS)}),?\s+(?:the\s+)?$", text[: match.start()][-16:], re.IGNORECASE)]
    beside += [re.match(rf",?\s+(?:a\s+)?\(?({'|'.join(WEEKDAYS)})\b", text[match.end() :][:16], re.IGNORECASE)]
    return {WEEKDAYS.index(one[1].lower()) for one in beside if one} or set(range(7))


def _day(said: str, days: Iterable[date], found: Stated) -> None:
    days = set(days)
    if not days:
        found.faults.append(f"says {said!r}, a day that neither the user nor a tool gave")
    if len(days) == 1:  # of two Fridays, it told neither
        found.days |= days


def _times(text: str, known: Given, found: Stated) -> str:
    for match in TIME.finditer(text):
        times = _clock(match)
        if times and times[0] in known.times:
            found.times |= set(times)
        else:
            found.faults.append(f"says {match.group()!r}, a time that neither the user nor a tool gave")
    return _without(text, [TIME])


def _codes(text: str, known: Given, found: Stated) -> str:
    """Pieces with letters and digits in them that are no number with a unit: as they were given, or wrong."""
    for piece in re.findall(r"\S+", text):
        bare = piece.strip(".,;:!?()[]\"'“”*_")
        code = re.search(r"\d", bare) and re.search(r"[^\W\d_]", bare) and not AMOUNT.fullmatch(bare)
        if code or re.search(r"\d[-/⁄+]\d", bare):
            if not read_text(known.text).says(bare):
                found.faults.append(f"says {bare!r}, which neither the user nor a tool gave")
            text = text.replace(bare, " " * len(bare), 1)
    return text


def _amounts(text: str, known: Given, found: Stated) -> str:
    for match in AMOUNT.finditer(text):
        value, units = _number(match), _units(match)
        right = {(value, unit) for unit in units} & known.amounts
        if (match["before"] and match["after"] and not units) or not (right if units else value in known.numbers):
            found.faults.append(f"says {match.group()!r}, which neither the user nor a tool gave")
            continue
        found.numbers |= set() if units else {value}
        found.amounts |= right
    rest = AMOUNT.sub(" ", text)
    if left := re.search(r"\S*[^\W\D]\S*", rest):
        found.faults.append(f"says {left.group()[:40]!r}, which cannot be read as a number; write it plainly")
    return rest


def _in_words(text: str, known: Given, found: Stated) -> None:
    numbers = read_text(text).numbers
    found.numbers |= numbers
    for number in sorted(numbers - known.numbers):
        found.faults.append(f"says {float(number):g} in words, which neither the user nor a tool gave")
    for match in (*VAGUE.finditer(text), *COUNTED.finditer(text)):
        if not read_text(known.text).says(match.group()):
            found.faults.append(f"says {match.group()!r}; give numbers and times in digits, as the tool gave them")


def _names(text: str, known: Given, found: Stated) -> None:
    """Words with a capital letter inside a sentence, and letters of scripts that nobody used."""
    for word in _capitals(text):
        if not read_text(known.text).says(word):
            found.faults.append(f"says {word!r}, a name that neither the user nor a tool gave")
    foreign = {c for c in text if c.isalpha() and "LATIN" not in unicodedata.name(c, "") and c not in "ªº"}
    if strange := foreign - set(known.text):
        found.faults.append(f"has the letter {min(strange)!r} of another script")


def _capitals(text: str) -> Iterator[str]:
    for match in WORD.finditer(text):
        word = re.sub(r"'s$", "", match.group())
        before = text[: match.start()].rstrip(" ")
        begins = (not before or before[-1] in STARTS) and (
            word.lower() in SUBJECTS or not VERB.match(text, match.end())
        )
        ours = word.lower() in WEEKDAYS or word.lower() in MONTH_NAMES or word.lower() in OF_NOBODY
        if any(c.isupper() for c in word) and not begins and not ours:
            yield word


def without_days(text: str) -> str:
    """`text` with blanks in the place of dates."""
    return _without(text, (*DATES, *PARTIAL))


def names_in(text: str) -> set[str]:
    """Words with a capital letter inside a sentence, folded; days, months and currencies are none."""
    return {folded(word) for word in _capitals(unicode_plain(text))}
