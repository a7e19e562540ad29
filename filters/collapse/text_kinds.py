"""Kinds of data: how a document becomes the units that the metrics count, what they are called, and which metrics hold.

A metric holds for a kind if real data of the kind, compared with itself, almost never gives four deviations. Units are those with
which collapsed data moves the tail metrics further (`benchmarks/README.md`). Knows no comparison and no verdict.
"""

import ast
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from core.errors import UsageError
from filters.collapse.code_structure import MAX_CODE_NODES, outline_code, outline_expression, parse_code
from filters.collapse.collapse_metrics import METRIC_NAMES, CollapseMetric
from filters.collapse.matched_samples import split_into_words
from filters.text_normalization import SPACELESS_LETTER, is_spaceless

CHECKED_TEXTS = 200
"""Texts from which the kind of a dataset is found, evenly spaced."""
MIN_KIND_SHARE = 0.5
"""Least share of them that has the form of a kind."""
MIN_SPACELESS_SHARE = 0.3
"""Least share of letters from scripts without spaces: technical Chinese has many Latin names."""
MAX_CHARACTERS = 50_000
"""Of a document, from its beginning: units beyond are not read."""
MAX_FIELDS = MAX_CODE_NODES
"""Fields of a record that are read."""
WHOLE_VALUE_WORDS = 3
"""A text value of at most this number of words is one unit; each word of a longer one is a unit, as values of many words are
nearly all different."""
EXACT_NUMBERS = 100
"""Numbers of records from here on are counted by sign, number of digits and first digit."""


def _without(*names: str) -> frozenset[str]:
    return frozenset(METRIC_NAMES) - frozenset(names)


def _join_units(units: Sequence[str]) -> str:
    """Consecutive units as a phrase, pairs of characters as the text that they are of: `ab`, `bc` is `abc`."""
    text = ""
    for unit in units:
        overlaps = text and is_spaceless(unit) and text[-1] == unit[0]
        text += unit[1:] if overlaps else f" {unit}"
    return text.strip()


# Code

FENCED = re.compile(r"^(`{3,9}|~{3,9})[^\n]*\n(.*?)(?:^\1|\Z)", re.MULTILINE | re.DOTALL)
CODE_TOKEN = re.compile(
    r"""\#[^\n]*|(?P<text>[rbfuRBFU]{0,2}
    (?:\"{3}(?:[^\\]|\\.){0,3000}?\"{3}|'{3}(?:[^\\]|\\.){0,3000}?'{3}|"(?:[^"\\\n]|\\.){0,500}"|'(?:[^'\\\n]|\\.){0,500}'))|(?P<name>[^\W\d]\w*)|(?P<number>\d[\w.]*)
    |(?P<mark>\*\*=?|//=?|>>=?|<<=?|->|:=|[=!<>]=|[-+*/%&|^@]=|\.\.\.|[^\s\w])""",
    re.VERBOSE | re.DOTALL,
)
"""Tokens of Python (language reference, chapter 2) without line ends and comments. Never fails, so that broken code and other
languages also have tokens. Lengths of strings are bounded: without bounds, text with many quotes takes quadratic time."""
MAX_TEXT_TOKEN = 24
"""Characters of a string that is counted by its value: a longer one is a message or a docstring."""


def extract_code(text: str) -> str:
    """The fenced code of a text, or the whole text without a fence."""
    fenced = [found[2] for found in FENCED.finditer(text[:MAX_CHARACTERS])]
    return textwrap.dedent("\n".join(fenced) if fenced else text[:MAX_CHARACTERS]).strip()


def split_into_tokens(text: str) -> list[str]:
    """Tokens of code, names whole."""
    return [spell_token(found) for found in CODE_TOKEN.finditer(extract_code(text)) if found.lastgroup]


def spell_token(found: re.Match[str]) -> str:
    """A match of `CODE_TOKEN` as its unit."""
    token = found.group()
    return '"…"' if found.lastgroup == "text" and len(token) > MAX_TEXT_TOKEN else token


MIN_CODE_NODES = 10
"""Nodes of a function that returns a constant or raises an error: real code has many of these."""


def _outline_document_code(text: str) -> str | None:
    return outline_code(extract_code(text))


# Records


class RecordField(NamedTuple):
    path: str
    value: Any
    """A scalar, or an empty container."""


def _parse_records(text: str) -> list[Any]:
    """The JSON objects and lists of a text: all of it, its fenced blocks, or its lines; empty without any."""
    text = text[:MAX_CHARACTERS]
    whole = _parse_container(text)
    if whole is not None:
        return [whole]
    parts = [found[2] for found in FENCED.finditer(text)] or text.splitlines()
    return [value for part in parts if (value := _parse_container(part)) is not None]


def _parse_container(text: str) -> Any:
    """None for anything but an object or a list, and for one that is nested too deeply."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = orjson.loads(text)
    except ValueError:
        try:
            value = json.loads(text)  # also reads NaN and large integers
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict | list) else None


def iterate_fields(text: str) -> Iterator[RecordField]:
    """The fields of a text's records in order, at most `MAX_FIELDS`."""
    waiting: list[RecordField] = [RecordField("", record) for record in reversed(_parse_records(text))]
    for _ in range(MAX_FIELDS):
        if not waiting:
            return
        path, value = waiting.pop()
        if value and isinstance(value, dict):
            waiting.extend(RecordField(f"{path}.{key}", inner) for key, inner in reversed(value.items()))
        elif value and isinstance(value, list):
            waiting.extend(RecordField(f"{path}[]", inner) for inner in reversed(value))
        else:
            yield RecordField(path, value)


def split_into_fields(text: str) -> list[str]:
    """A unit for each field, `path=value`; of longer texts, one for each word. Large numbers are rounded."""
    return [unit for field in iterate_fields(text) for unit in spell_field(field)]


def spell_field(field: RecordField) -> list[str]:
    """Its units, as those of `split_into_fields`."""
    match field.value:
        case bool() | None:
            return [f"{field.path}={json.dumps(field.value)}"]
        case int() | float():
            return [f"{field.path}={round_number(str(field.value))}"]
        case str():
            words = field.value.lower().split()
            if len(words) <= WHOLE_VALUE_WORDS:
                return [f"{field.path}={' '.join(words)}"]
            return [f"{field.path}={word}" for word in split_into_words(field.value)]
    return [f"{field.path}={'{}' if isinstance(field.value, dict) else '[]'}"]


def _list_record_keys(text: str) -> str | None:
    """The paths of a text's records, each once, in order of the alphabet."""
    return " ".join(sorted({field.path for field in iterate_fields(text)})) or None


# Arithmetic

ARITHMETIC_TOKEN = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+|[-+*/×÷−=()%^<>]")
SIGNS = {"×": "*", "÷": "/", "−": "-"}
EXPRESSION = re.compile(r"[(-]{0,9}\s?\d[\d,. ]{0,30}(?:[-+*/×÷−()%^]{1,9}[ (]{0,9}\d?[\d,. ]{0,30}){1,50}")
EQUATION = re.compile(r"\d\s{0,3}\)?\s{0,3}(?:[+*×÷=]\s{0,3}|\s[-/−]\s)[-(]?\s{0,3}\$?\d")
"""An operation between two numbers. Without spaces, `-` and `/` are those of dates and ranges."""
MIN_OPERATION_WORDS = 9
"""Of the outline of two operations: single ones are of four kinds by nature."""
MAX_EQUAL_OPERATIONS = 0.1
"""As among ten equally frequent shapes. Real sums have at most 0.03 (`benchmarks/README.md`, structure without a reference)."""
MAX_EXPRESSIONS = 20
"""Expressions of a document that its shape is made of."""


def _split_into_operations(text: str) -> list[str]:
    """Numbers, operators and words in order."""
    return [
        SIGNS.get(token, token.lower().replace(",", "")) for token in ARITHMETIC_TOKEN.findall(text[:MAX_CHARACTERS])
    ]


def round_number(number: str) -> str:
    """`number` below 100 without its decimals; others by their sign, first digit and digits before the point: `1234` is `1e3`."""
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, point, _ = digits.partition(".")
    if not whole.isdigit() or len(whole.lstrip("0")) < len(str(EXACT_NUMBERS)):
        return f"{sign}{whole}{'.…' if point and whole.isdigit() else digits[len(whole) :]}"
    whole = whole.lstrip("0")
    return f"{sign}{whole[0]}e{len(whole) - 1}"


def _outline_operations(text: str) -> str | None:
    """The operation trees of a text's expressions in order."""
    outlines = []
    for found in EXPRESSION.finditer(text[:MAX_CHARACTERS]):
        written = re.sub(r"(?<=\d),(?=\d{3})", "", found.group()).strip(" .,\n")
        outline = outline_expression("".join(SIGNS.get(letter, letter) for letter in written))
        if outline and outline != "n":
            outlines.append(outline)
        if len(outlines) == MAX_EXPRESSIONS:
            break
    return " ".join(outlines) or None


class TextKind(NamedTuple):
    """One kind of data."""

    name: str
    """As recipes and `--kind` write it."""
    noun: str
    """What a document is, in messages."""
    unit: str
    """What is counted, in the singular."""
    split: Callable[[str], list[str]]
    """The units of a document; empty if it has none."""
    matches: Callable[[str], bool]
    """Whether a text has the form of this kind."""
    metrics: frozenset[str]
    """The collapse metrics that hold."""
    repetition: frozenset[str]
    """The shares of `filters.collapse.repetition` that hold."""
    outline: Callable[[str], str | None] | None = None
    """The template of a document, None if it has none. Without this function, templates are beginnings as common units and
    gaps."""
    structure: str = "beginning"
    """What a template is, in messages."""
    least_outline: int = 0
    """Words of an outline that can vary: real data of the kind has few shorter ones by nature."""
    template_limit: float = 0.05
    """The largest probability of the same structure in two documents that is not called a collapse, above that of the same words
    in random order: that of 20 equally frequent structures. Beginnings of real text have at most 0.03 at 100 documents and
    0.011 from 500 on, programs and records less (`benchmarks/README.md`, structure without a reference)."""
    compares_values: bool = False
    """Whether two documents have the same structure if most fields of their records have equal values: the same keys are no
    template. Tool calls belong to the text then, as records."""
    join: Callable[[Sequence[str]], str] = _join_units
    folds_case: bool = True
    """Whether words of the text are units in lower case."""
    min_letters: int = 3
    """Letters of a unit that names a subject, at least."""

    def describe_metric(self, metric: CollapseMetric) -> str:
        if metric.name == "templates" and self.outline:
            return f"probability that two documents have the same {self.structure}; a template raises it"
        return self.name_units(metric.meaning)

    def names_subject(self, unit: str) -> bool:
        """Whether a unit can tell what a document is about: a word of a few letters, or a name or field with as many."""
        if self.folds_case and "=" not in unit:
            return unit.isalpha() and len(unit) >= self.min_letters
        return sum(map(str.isalpha, unit.partition("=")[2] or unit)) >= self.min_letters

    def describe_structure(self) -> str:
        """What `filters.collapse.dataset_templates` measures."""
        if self.compares_values:
            return "probability that two different records have the same values in seven tenths of their fields"
        what = self.structure if self.outline else "beginning of common words and gaps"
        return self.name_units(f"probability that two documents have the same {what}, but not the same text")

    def name_units(self, sentence: str) -> str:
        """A sentence about words as one about the units of this kind."""
        return re.sub(r"\bword(s?)\b", rf"{self.unit}\1", sentence) if self.unit != "word" else sentence


def _is_code(text: str) -> bool:
    """Whether the text, or its fenced part, is a Python program: more than one expression."""
    tree = parse_code(extract_code(text))
    return isinstance(tree, ast.Module) and any(not isinstance(node, ast.Expr) for node in tree.body)


def _is_dialogue(text: str) -> bool:
    return bool(read_turns(text))


def _has_spaceless_letters(text: str) -> bool:
    text = text[:MAX_CHARACTERS]
    return len(SPACELESS_LETTER.findall(text)) >= max(1.0, MIN_SPACELESS_SHARE * sum(map(str.isalpha, text)))


REPETITION_SHARES = frozenset(
    {"exact_duplicates", "repeated_answers", "copied_documents", "looping_documents", "openers", "repeated_4grams"}
)
TEXT_KINDS = {
    kind.name: kind
    for kind in (
        # Most turns are too short to have 8-grams, so two equal long ones are many deviations.
        TextKind(
            "dialogue", "dialogues", "word", split_into_words, _is_dialogue, _without("duplicate_8grams"), REPETITION_SHARES
        ),
        TextKind(
            "json", "JSON records", "field", split_into_fields, lambda text: bool(_parse_records(text)),
            _without("strange_words"), REPETITION_SHARES - {"openers", "repeated_4grams", "copied_documents"},
            _list_record_keys, "set of keys", compares_values=True,
        ),
        TextKind(
            "code", "Python code", "token", split_into_tokens, _is_code, _without("strange_words"),
            REPETITION_SHARES - {"repeated_4grams"}, _outline_document_code, "syntax tree, names and constants aside",
            MIN_CODE_NODES, folds_case=False,
        ),
        TextKind(
            "arithmetic", "arithmetic", "token", _split_into_operations, lambda text: bool(EQUATION.search(text)),
            _without("strange_words"), REPETITION_SHARES - {"repeated_4grams"}, _outline_operations, "operation trees",
            MIN_OPERATION_WORDS, MAX_EQUAL_OPERATIONS,
        ),
        # Eight pairs are nine characters: a phrase, and no copy.
        TextKind(
            "characters", "text without spaces between words", "character pair", split_into_words, _has_spaceless_letters,
            _without("strange_words", "duplicate_8grams"), REPETITION_SHARES, min_letters=2,
        ),
        TextKind("prose", "prose", "word", split_into_words, lambda _: True, _without(), REPETITION_SHARES),
    )
}  # fmt: skip
"""By name, in the order in which they are recognized: prose is what has no other form."""
PROSE = TEXT_KINDS["prose"]


class HeldValues(dict[str, float]):
    """Values by metric; a metric that does not hold for a kind has the value with which it decides nothing."""

    def __init__(self, values: Mapping[str, float], held: frozenset[str], otherwise: float) -> None:
        super().__init__({name: value for name, value in values.items() if name in held})
        self._otherwise = otherwise

    def __missing__(self, name: str) -> float:
        return self._otherwise


def find_kind(texts: Sequence[str]) -> TextKind:
    """The first kind whose form at least half of the texts have."""
    step = max(1, len(texts) // CHECKED_TEXTS)
    checked = [text for text in texts[::step][:CHECKED_TEXTS] if text.strip()]
    return next(kind for kind in TEXT_KINDS.values() if _fits(checked, kind))


def has_kind(texts: Sequence[str], kind: TextKind) -> bool:
    """Whether at least half of the texts have the form of the kind."""
    step = max(1, len(texts) // CHECKED_TEXTS)
    return _fits([text for text in texts[::step][:CHECKED_TEXTS] if text.strip()], kind)


def _fits(texts: Sequence[str], kind: TextKind) -> bool:
    return sum(map(kind.matches, texts)) >= MIN_KIND_SHARE * max(len(texts), 1) or kind is PROSE


def get_kind(name: str) -> TextKind:
    """Raises UsageError for an unknown name."""
    if name not in TEXT_KINDS:
        raise UsageError(f"--kind: {name!r} is no kind of data; known are {', '.join(sorted(TEXT_KINDS))}")
    return TEXT_KINDS[name]


# Dialogues

Turns = Mapping[str, Sequence[str]]


def read_turns(text: str) -> dict[str, list[str]]:
    """The turns by role of a dialogue written as the JSON of its messages; empty for any other text."""
    messages = _parse_container(text[:MAX_CHARACTERS])
    if isinstance(messages, dict):
        messages = messages.get("messages")
    if not isinstance(messages, list) or not messages:
        return {}
    turns: dict[str, list[str]] = {}
    for message in messages[:MAX_FIELDS]:
        if not isinstance(message, dict):
            return {}
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            return {}
        turns.setdefault(role, []).append(content)
    return turns
