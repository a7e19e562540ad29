"""The forms of texts of the family `extraction`: how each is asked for and recognized, the noise of a scan, and fields that a
text shows without saying. Knows no teacher.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date, time
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

from agents.checks.text.quantities import MONTHS, read_written
from agents.checks.text.text_units import CONTRAST_WORDS, DENIALS, ENGLISH, fold_text
from core.project_files import read_shipped_table

_SCENES: Mapping[str, Any] = read_shipped_table("data/seeds/extraction_scenes.toml")
STYLES: tuple[str, ...] = tuple(_SCENES["styles"])
PLACES: tuple[str, ...] = tuple(_SCENES["places"])
SENDERS: Mapping[str, int] = _SCENES["senders"]
"""Who writes a text, with weights."""
REGISTERS: Mapping[str, int] = _SCENES["registers"]
OPENINGS: Mapping[str, int] = _SCENES["openings"]
UNFIT = tuple((re.compile(rf"\b(?:{one})"), re.compile(rf"\b(?:{other})")) for one, other in _SCENES["unfit"].items())
"""Pairs of a person, tone or opening, and of what does not go with it: a topic, a kind of text, a length, or another of them."""
INSTRUCTIONS: tuple[str, ...] = tuple(_SCENES["instructions"])
FORMS: Mapping[str, Mapping[str, Any]] = _SCENES["forms"]
INFERRED: Sequence[Mapping[str, Any]] = _SCENES["inferred"]
LIST_ITEMS = range(10, 16)
"""Items of a long list."""
LONG_LISTS = 0.3
"""Share of forms, tables, HTML and long texts with such a list, if the schema has a list of objects."""


def draw_voice(given: Sequence[str], rng: Random) -> dict[str, str]:
    """A sender, a register and an opening that go with each other and with what is `given`."""
    drawn: dict[str, str] = {}
    for name, choices in (("sender", SENDERS), ("register", REGISTERS), ("opening", OPENINGS)):
        known = [*given, *drawn.values()]
        fit = [one for one in choices if not any(_is_unfit(one, other) for other in known)] or list(choices)
        drawn[name] = rng.choices(fit, [choices[one] for one in fit])[0]
    return drawn


def _is_unfit(one: str, other: str) -> bool:
    """Whether two conditions of a text do not go together, such as a formal tone and a diary."""
    (first, second), (other_first, other_second) = _match_unfit(one), _match_unfit(other)
    return bool(first & other_second or other_first & second)


@lru_cache(maxsize=4096)
def _match_unfit(text: str) -> tuple[int, int]:
    """Which of the pairs in `UNFIT` have a first pattern that `text` matches, and which a second one, as bits."""
    first, second = (sum(bool(pair[i].search(text)) << bit for bit, pair in enumerate(UNFIT)) for i in (0, 1))
    return first, second


# What a scan does to a text

LOOK_ALIKE = (("rn", "m"), ("m", "rn"), ("l", "1"), ("e", "c"), ("h", "b"), ("cl", "d"), ("d", "cl"), ("i", "l"), ("o", "0"),
              ("u", "n"), ("t", "f"), ("w", "vv"), ("fi", "f1"), ("a", "o"))  # fmt: skip
"""Letters that readers of scans take for others."""
MISREAD, SPECK, JOINED, HYPHENATED = 0.12, 0.03, 0.02, 0.5
"""Probability of a misread word, of a speck between two words, of a missing space, and that a long word is cut at a line's
end."""
SPECKS = (".", "'", ",", "|", "~", "·")
LINE_WIDTHS = range(46, 73)
MIN_LETTERS = 4
"""A shorter word is left as it is."""
KEPT_WORDS = frozenset(
    " ".join(ENGLISH[key] for key in ("small_numbers", "tens", "ordinals")).split()
) | CONTRAST_WORDS | frozenset(fold_text(word) for word in DENIALS) | frozenset(
    "hundred thousand million dozen half quarter noon midday midnight morning afternoon evening night".split()
)  # fmt: skip


def add_scan_noise(text: str, values: Sequence[str], rng: Random) -> str:
    """`text` as a scanner reads its print: lines of one width, misread letters, specks, missing spaces, cut words.

    Words of `values`, short words, denials, and whatever has a digit or is part of a number, a date or a time stay as they are.
    """
    kept = KEPT_WORDS.union(*(re.findall(r"[^\W_]+", fold_text(value)) for value in values))
    width, lines = rng.choice(LINE_WIDTHS), []
    for paragraph in text.splitlines():
        words = paragraph.split()
        free = [_may_change(word, kept) for word in words]
        noisy = [
            _misread(word, rng) if change and rng.random() < MISREAD else word
            for word, change in zip(words, free, strict=True)
        ]
        lines += _set_lines(noisy, free, width, rng)
    return "\n".join(lines)


def _may_change(word: str, kept: frozenset[str]) -> bool:
    parts = re.findall(r"[^\W\d_]+", fold_text(word))
    long = sum(map(len, parts)) >= MIN_LETTERS and not re.search(r"[\d@/]|n't\b", word)
    return long and not any(part in kept or any(part.startswith(month) for month in MONTHS) for part in parts)


def _misread(word: str, rng: Random) -> str:
    found = [(match.start(), old, new) for old, new in LOOK_ALIKE for match in re.finditer(old, word)]
    if not found:
        return word
    at, old, new = rng.choice(found)
    return f"{word[:at]}{new}{word[at + len(old) :]}"


def _set_lines(words: Sequence[str], free: Sequence[bool], width: int, rng: Random) -> list[str]:
    """A paragraph in lines, with specks, cut words and missing spaces between words that may change."""
    lines = [""]
    for i, word in enumerate(words):
        between = " " if lines[-1] else ""
        if i and free[i] and free[i - 1]:
            chance = rng.random()
            if chance < JOINED and word.isalpha():
                between = ""
            elif chance > 1 - SPECK:
                between = f" {rng.choice(SPECKS)} "
        if len(lines[-1]) + len(between) + len(word) <= width or not lines[-1]:
            lines[-1] += between + word
        elif free[i] and word.isalpha() and len(word) > 2 * MIN_LETTERS and rng.random() < HYPHENATED:
            cut = rng.randint(MIN_LETTERS, len(word) - MIN_LETTERS)
            lines[-1] += f" {word[:cut]}-"
            lines.append(word[cut:])
        else:
            lines.append(word)
    return lines


# Fields that a text shows and does not say


class ComputedField(NamedTuple):
    """A choice that follows from another field, by a rule that its description gives."""

    name: str
    of: str
    """The dotted path of the other field."""
    rule: str


RULES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "quarter": ("quarter of the year of {of}", ("Q1", "Q2", "Q3", "Q4")),
    "season": ("season of {of}; spring begins in March, summer in June", ("winter", "spring", "summer", "autumn")),
    "part_of_day": ("morning if {of} is before 12:00, afternoon before 18:00, else evening", ("morning", "afternoon", "evening")),
    "how_many": ("number of {of}: few up to 3, some up to 9, many from 10", ("few", "some", "many")),
}  # fmt: skip
"""By rule, the description of a computed field and its choices."""


def list_computed_fields(parts: Mapping[str, Mapping[str, Any]]) -> list[ComputedField]:
    """What can be computed from fields, by their dotted path with their schema."""
    found = []
    for path, part in parts.items():
        name = path.rpartition(".")[2]
        rules: Sequence[str] = ()
        if part.get("format") == "date":
            rules = ("quarter", "season")
        elif part.get("type") == "string" and part.get("pattern") == r"^\d\d:\d\d$":
            rules = ("part_of_day",)
        elif part.get("type") == "array":
            rules = ("how_many",)
        found += [
            ComputedField(f"{name}_{rule}" if rule != "how_many" else f"{rule}_{name}", path, rule) for rule in rules
        ]
    return found


def compute_field(rule: str, value: Any) -> str | None:
    """The value of a computed field; None if the other field has none that can be read."""
    if rule == "how_many":
        return (
            ("few" if len(value) <= 3 else "some" if len(value) <= 9 else "many") if isinstance(value, list) else None
        )
    try:
        if rule == "part_of_day":
            hour = time.fromisoformat(value).hour
            return "morning" if hour < 12 else "afternoon" if hour < 18 else "evening"
        month = date.fromisoformat(value).month
    except (TypeError, ValueError):
        return None
    return RULES[rule][1][(month - 1) // 3 if rule == "quarter" else month % 12 // 3]


def describe_computed(field: ComputedField) -> dict[str, Any]:
    description, choices = RULES[field.rule]
    return {"enum": [*choices, None], "description": description.format(of=f"`{field.of}`"), "x-inferred": True}


def describe_wish(name: str, value: str) -> str:
    meaning = next(one["values"][value] for one in INFERRED if one["name"] == name)
    return (
        f"Let a reader infer, by what is told and how, that {name} is {value} ({meaning}); never say it in these words."
    )


def describe_inferred(field: Mapping[str, Any]) -> dict[str, Any]:
    meanings = "; ".join(f"{value}: {meaning}" for value, meaning in field["values"].items())
    return {"enum": list(field["values"]), "description": f"{field['description']}. {meanings}", "x-inferred": True}


# What a text must be like


def find_scene_faults(seed: Mapping[str, Any], text: str, values: Mapping[str, Any]) -> list[str]:
    """Why a text is not of its form, or says what it is only to show."""
    faults = []
    form = FORMS.get(seed.get("form", ""), {})
    if "has" in form and not re.search(form["has"], text):
        faults.append(f"the text is not of the form {seed['form']!r}; {form['request']}")
    if "lengths" in form and (count := len(text.split())) < seed["words"] / 2:
        faults.append(f"the text has {count} words; write about {seed['words']}")
    if "inferred" in seed:
        name, wanted = seed["inferred"]
        if values.get(name) != wanted:
            faults.append(f"{name} must be {wanted!r}; let the text show it, and give it")
        if read_written(text).contains_phrase(wanted.replace("_", " ")):
            faults.append(f"the text says {wanted!r}, which is to be inferred; show it without the word")
    return faults
