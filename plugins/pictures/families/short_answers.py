"""Whether two short answers to one question are the same: names, numbers, dates, codes, a few words. Strict where `second_reader`
is generous: what one answer has more than the other, in words, numbers or signs, makes them different. Knows no family.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from agents.checks.text.quantities import (
    CLOCK,
    DATES,
    FOLLOWING_UNIT,
    PARTIAL_DATE_PATTERNS,
    canonical_unit,
    find_quantities,
    match_dates,
    match_times,
    month_number,
    parse_number_words,
)
from agents.checks.text.supported_by_passage import (
    WORD,
    is_denial_word,
    list_choices,
    merge_forms,
    normalize_spelling,
    repeatable_words,
    split_polarity,
    word_forms,
)
from agents.checks.text.text_units import ENGLISH, FUNCTION_WORDS, fold_text, read_word_groups

OUTER_MARKS = ".,;:!?\"'`“”‘’()[]"
HYPHENATED_WORDS = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+")
PLAIN_WORD = re.compile(r"[^\W\d_]{3,}")
LETTER = r"[^\W\d_]"
SPACE_IN_CODE = re.compile(rf"(?<={LETTER})(?:\s+|-)(?={LETTER})|(?<={LETTER})\s+(?=\d)|(?<=\d)(?:\s+|-)(?={LETTER})")
"""Spaces and hyphens between two letters, or a letter and a digit. A hyphen before a digit may be a sign, and 1-3 is not 13."""
FIRST_MARKS = re.compile(rf"(?:[{re.escape(OUTER_MARKS.replace('.', ''))}\s]|\.(?!\d))+")
"""A point before a digit belongs to the number."""
CURRENCIES = frozenset(("dollar", "euro", "pound"))
ORDINALS = dict(
    enumerate("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), 1)
)
ORDINAL_PLACES = {word: place for place, word in ORDINALS.items()}
PARTS_OF_ONE = {"half": 2, "third": 3, "quarter": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
FORMS: Mapping[str, str | Callable[[re.Match[str]], str]] = {
    **ENGLISH["answer_forms"],
    r"\b(first|second|third|fourth) quarter\b(?: of)?": lambda found: f"Q{ORDINAL_PLACES[found[1].lower()]}",
    r"\b(half|quarter) (past|to) (one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b": lambda found: (
        _write_clock(found[1].lower(), found[2].lower(), int(parse_number_words(found[3].lower()) or 0))
    ),
    r"\b(?:(\w+) and )?(an?|one|two|three|five|seven) (half|third|quarter|fifth|sixth|eighth|tenth)s?\b": lambda found: (
        _write_fraction(*found.groups()) or found[0]
    ),
    r"\bsq(?:uare)?\.? ([a-z]+)\b|\b([ck]?m|ft)[²2](?!\w)": lambda found: (
        f"square {canonical_unit(found[1] or found[2]) or found[1] or found[2]}"
    ),
    r"(?<!\w)'(\d\d)(?=s?\b(?!'))": lambda found: f"{_complete_year(found[1])}",
}
"""What other forms of a temperature, speed, price, size, fraction, quarter and time become, whatever their case."""
UNIT_SIZES = {unit: (int(size), base) for unit, size, base in read_word_groups("unit_sizes")}
SAME_WORDS = {word: group[0] for group in read_word_groups("same_words") for word in group}
"""Each word of a group as its first one: other spellings, abbreviations, and other words for what an image shows."""
MODIFIERS = frozenset(ENGLISH["modifiers"].split())
"""Words that one answer may add before its noun: a lighter, a red lighter."""
DISTINGUISHING = re.compile(r"\b(?:which|or|colou?r|size|shape|material|kind|type|made of|how)\b", re.IGNORECASE)
"""Questions to which such a word may be the answer."""
AND = re.compile(r"(?:,\s*|\s+)(?:and|&)\s+", re.IGNORECASE)
LIST_GAP = re.compile(rf"{AND.pattern}|,\s+|(?<={LETTER}{{3}})/(?={LETTER}{{3}})", re.IGNORECASE)
NAMED_SET = re.compile(r"\b(?:which|what) (?:two|three|four|five|six)\s", re.IGNORECASE)
"""Questions to which the order of names is no part of the answer, also without `and`."""
HOW_MANY, NONE = re.compile(r"\bhow many\b", re.IGNORECASE), re.compile(r"\A\W*none\b(?: of them)?\W*\Z", re.IGNORECASE)
ORDERED = re.compile(
    r"\border(?:ed)?\b|\bfrom (?:the )?(?:left|right|top|bottom)\b|\bsequence\b|\bfirst\b", re.IGNORECASE
)
"""Questions to which the order of a list is part of the answer."""
PLACE = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th)\b", re.IGNORECASE)
RANGE = re.compile(r"(?<![\w.,-])(\d[\d.,]*)-(\d[\d.,]*)(?![\w-])")
LAST_ONE = re.compile(r"(?<=\w)(?<!ty)(?<!hundred)\s+one\W*\Z", re.IGNORECASE)
"""`one` for the thing that was named: the left one."""
MONTH = r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)(?:uary|ruary|ch|il|ust|ember|ober)?\b"
WEEKDAY = re.compile(
    r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+(?:the\s+)?"
    rf"(?={MONTH}\.?\s+\d|\d{{1,2}}(?:(?:st|nd|rd|th)?\.?\s+(?:of\s+)?{MONTH}|(?:st|nd|rd|th)\b|[/.-]\d{{1,2}}\b)|\d{{4}}-)",
    re.IGNORECASE,
)
"""Before a date. One answer may have it alone, unless the question asks for it."""
ASKS_WEEKDAY = re.compile(r"\bweekday\b|\bday of the week\b", re.IGNORECASE)
MONTHS = (
    re.compile(rf"\b({MONTH})\.?,? (?:of )?(\d{{4}})\b|(?<![\d/])(0?[1-9]|1[0-2])/(\d{{4}})(?![\d/])", re.IGNORECASE),
)
"""A month with its year."""
WHERE = re.compile(r"\s*where\b", re.IGNORECASE)


class AnswerToken(NamedTuple):
    """A number with its unit, or a word or sign."""

    word: str
    value: Fraction | None = None
    unit: str = ""

    def is_same(self, other: "AnswerToken") -> bool:
        if self.value is not None and other.value is not None:
            units = {self.unit, other.unit}
            if len(units) == 2 and "" in units:
                return self.value == other.value and units - CURRENCIES == {""}
            sizes = [UNIT_SIZES.get(unit, (1, unit)) for unit in (self.unit, other.unit)]
            return sizes[0][1] == sizes[1][1] and self.value * sizes[0][0] == other.value * sizes[1][0]
        left, right = (SAME_WORDS.get(word, word) for word in (self.word, other.word))
        both_words = PLAIN_WORD.fullmatch(left) and PLAIN_WORD.fullmatch(right)
        return left == right or bool(both_words and self._forms & other._forms)

    @property
    def _forms(self) -> frozenset[str]:
        return frozenset(SAME_WORDS.get(form, form) for form in word_forms(self.word))


def is_same_short_answer(left: str, right: str, question: str) -> bool:
    """Whether they have the same numbers, words and signs in the same order, whatever their case, articles, inflection, spelling,
    and form of dates, times, numbers and units. Words and units of the question need not be in both; of a choice that it offers,
    both must name the same. Lists with `and` may be in any order, unless the question asks for one.
    """
    (lead, rest), (other_lead, other_rest) = (
        split_polarity(normalize_spelling(text.strip())) for text in (left, right)
    )
    if lead != other_lead:
        return False
    if lead and not (rest.strip(OUTER_MARKS + " ") and other_rest.strip(OUTER_MARKS + " ")):
        return True
    if _join_code(rest) == _join_code(other_rest):
        return True
    if bool(WEEKDAY.search(rest)) != bool(WEEKDAY.search(other_rest)) and not ASKS_WEEKDAY.search(question):
        rest, other_rest = (WEEKDAY.sub("", text) for text in (rest, other_rest))
    if HOW_MANY.search(question):
        rest, other_rest = (NONE.sub("0", text) for text in (rest, other_rest))
    asked, texts = AskedWords.of(question), [_write_values(rest), _write_values(other_rest)]
    items, other_items = ([asked.list_tokens(item) for item in LIST_GAP.split(text)] for text in texts)
    is_set = NAMED_SET.search(question) and all(map(is_list, texts)) and not any(map(str.isdigit, "".join(texts)))
    if (is_set or any(map(AND.search, texts))) and not ORDERED.search(question):
        return len(items) == len(other_items) and _are_among(items, other_items)
    if WHERE.match(question) and len(items) != len(other_items):
        return _are_among(*sorted((items, other_items), key=len))
    first, second = map(asked.list_tokens, texts)
    if (choice := asked.find_choice(first)) is not None and choice == asked.find_choice(second):
        return True
    return _are_same(first, second) or (
        not DISTINGUISHING.search(question)
        and (_adds_modifiers(texts[0], first, second) or _adds_modifiers(texts[1], second, first))
    )


def is_list(answer: str) -> bool:
    """Whether an answer names several things: red and blue; 1, 2, 3."""
    return LIST_GAP.search(answer) is not None


def _are_same(left: Sequence[AnswerToken], right: Sequence[AnswerToken]) -> bool:
    return len(left) == len(right) and all(map(AnswerToken.is_same, left, right))


def _are_among(items: Sequence[Sequence[AnswerToken]], others: Sequence[Sequence[AnswerToken]]) -> bool:
    """Whether each item is one of the others, each of which counts once."""
    rest = list(others)
    for item in items:
        found = next((place for place, other in enumerate(rest) if _are_same(item, other)), None)
        if found is None:
            return False
        del rest[found]
    return True


def _adds_modifiers(text: str, longer: Sequence[AnswerToken], shorter: Sequence[AnswerToken]) -> bool:
    """Whether an answer is another one after adjectives of `MODIFIERS`. In a name, they tell things apart."""
    added = len(longer) - len(shorter)
    if added <= 0 or not shorter or any(word[0].isupper() for word in WORD.findall(text)[1:]):
        return False
    return all(token.word in MODIFIERS for token in longer[:added]) and _are_same(longer[added:], shorter)


def _join_code(text: str) -> str:
    """The answer without the spaces within a code or before a unit: AB 123 CD, 5 cm."""
    return SPACE_IN_CODE.sub("", _strip_marks(fold_text(text)))


def _strip_marks(text: str) -> str:
    """The text without punctuation before and after it."""
    begin = FIRST_MARKS.match(text)
    return text[begin.end() if begin else 0 :].rstrip(OUTER_MARKS + " ")


SHORT_YEAR_DATE = re.compile(r"(?<![\w/.\-])(?P<a>\d{1,2})/(?P<b>\d{1,2})/(?P<y>\d{2})(?![\w/])")
LAST_YEAR_OF_2000S = 68
"""The last of two digits that are read as 20.., as POSIX does."""


def _write_iso_values(text: str) -> str:
    """`text` with dates, days without a year, and times of day as ISO 8601 writes them: 2025-03-04, --03-04, 15:30. What can be
    read in two ways, and numbers that need not be times, stay as they are.
    """

    def write_date(match: re.Match[str]) -> str:
        days = list(match_dates(match))
        return days[0].isoformat() if len(days) == 1 else match[0]

    def write_day(match: re.Match[str]) -> str:
        return f"--{month_number(match['m']):02d}-{int(match['d']):02d}" if int(match["d"]) <= 31 else match[0]

    def write_time(match: re.Match[str]) -> str:
        found = list(match_times(match))
        return found[0].isoformat("seconds" if found[0].second else "minutes") if found else match[0]

    def complete_year(match: re.Match[str]) -> str:
        return f"{match['a']}/{match['b']}/{_complete_year(match['y'])}"

    def write_month(match: re.Match[str]) -> str:
        return f"{match[2] or match[4]}-{match[3] or month_number(match[1]):0>2}"

    text = SHORT_YEAR_DATE.sub(complete_year, text)
    for patterns, write in (
        (DATES, write_date),
        (PARTIAL_DATE_PATTERNS, write_day),
        (MONTHS, write_month),
        ((CLOCK,), write_time),
    ):
        for pattern in patterns:
            text = pattern.sub(write, text)
    return text


def _write_values(text: str) -> str:
    """An answer with one form for temperatures, dates and times."""
    for pattern, form in FORMS.items():
        text = re.sub(pattern, form, text, flags=re.IGNORECASE)
    text = RANGE.sub(r"\1 to \2", _write_iso_values(text))
    return PLACE.sub(lambda found: ORDINALS.get(int(found[1]), found[0]), text)


def _write_clock(part: str, way: str, hour: int) -> str:
    """Half past three as 3:30."""
    minutes = {("half", "past"): 30, ("quarter", "past"): 15, ("quarter", "to"): -15}.get((part, way), 0)
    hour, minute = divmod(60 * hour + minutes, 60)
    return f"{hour or 12}:{minute:02d}" if minutes else f"{part} {way} {hour}"


def _write_fraction(whole: str | None, count: str, part: str) -> str | None:
    """Two and a half as 2 1/2, three quarters as 3/4. A third alone may be the third."""
    number = parse_number_words(whole) if whole and not whole.isdigit() else whole
    counted = parse_number_words(count) or 1
    if number is None:
        return None if whole or count[0].lower() == "a" else f"{counted}/{PARTS_OF_ONE[part.lower()]}"
    return f"{number} {counted}/{PARTS_OF_ONE[part.lower()]}"


def _complete_year(digits: str) -> int:
    return int(digits) + (2000 if int(digits) <= LAST_YEAR_OF_2000S else 1900)


class AskedWords(NamedTuple):
    """What an answer may repeat of its question."""

    forms: frozenset[str]
    units: frozenset[str]
    choices: Sequence[frozenset[str]]
    """The forms of the words of each choice that it offers."""

    @classmethod
    def of(cls, question: str) -> "AskedWords":
        words = repeatable_words(normalize_spelling(question))
        units = {canonical_unit("percent" if word.lower() == "percentage" else word) for word in words}
        return cls(merge_forms(words), frozenset(units), list_choices(question))

    def list_tokens(self, text: str) -> list[AnswerToken]:
        """The numbers, words and signs of an answer, without articles and the like, and without words of the question; with them
        if nothing else is there.
        """
        text, tokens, end = LAST_ONE.sub("", text), list[AnswerToken](), 0
        for number in find_quantities(text):
            if len(number.values) != 1 or text[number.end - 1] == "-":
                continue
            tokens += _split_words(text[end : number.start])
            after = FOLLOWING_UNIT.match(text, number.end)
            end = after.end() if after and number.unit and canonical_unit(after[1]) == number.unit else number.end
            [value] = number.values
            tokens.append(AnswerToken("", value, "" if number.unit in self.units else number.unit))
        tokens += _split_words(text[end:])
        content = [token for token in tokens if token.word not in FUNCTION_WORDS]
        new = [one for one in content if not (PLAIN_WORD.fullmatch(one.word) and word_forms(one.word) & self.forms)]
        return new or content or tokens

    def find_choice(self, tokens: Sequence[AnswerToken]) -> int | None:
        """Which of two offered choices an answer names: the work, of `the work or the parts`. None if it names none or both."""
        named = [
            place for place, words in enumerate(self.choices) if any(word_forms(one.word) & words for one in tokens)
        ]
        return named[0] if len(named) == 1 and not any(is_denial_word(one.word) for one in tokens) else None


def _split_words(text: str) -> list[AnswerToken]:
    pieces = [_strip_marks(piece) for piece in re.split(r"\s+|,(?!\d)", fold_text(text))]
    words = [part for one in pieces for part in (one.split("-") if HYPHENATED_WORDS.fullmatch(one) else [one]) if part]
    return [AnswerToken(word, parse_number_words(word)) for word in words]
