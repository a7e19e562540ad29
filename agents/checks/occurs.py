"""The check `occurs`: every value of a structure stands in a text, or its schema says by what words the text tells it.

Knows no family and no teacher. What it cannot see: whether a value that stands in the text stands there for its field.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from fractions import Fraction
from typing import Any, NamedTuple

from pydantic import Field

from agents.checks.base import Options, Subject, check
from agents.checks.schema import BadSchema, part_of, parts_in, referred, validator_of
from agents.checks.written import Written, folded, loosened, read_text

EVIDENCE = "x-evidence"
"""A keyword of a schema beside the standard's: words by which a text tells a value, as lists by value (enums, booleans,
codes), or one list of words without which the text does not speak of the field at all."""
NOTHING = set("n/a na none null nil unknown unspecified tbd tba - -- ? nothing undefined".split()) | {
    "not specified", "not given", "not mentioned", "not stated", "not provided", "not available", "not applicable",
}  # fmt: skip
"""What stands for no value, where null should."""
TOLD = 3
"""How many faults are told at once: more than anyone mends in one revision."""
KEYS = {"properties", "patternProperties", "additionalProperties"}
"""Keywords that speak of an object's keys; where a schema has none, it tells no keys from values."""
ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
ISO_TIME = re.compile(r"(?P<clock>\d\d:\d\d(?::\d\d)?)(?:\.0+)?(?P<zone>Z|[+-]\d\d:\d\d)?")


class Part(NamedTuple):
    """A schema that a value follows; `chosen` where it is one of several that the value could follow."""

    schema: Mapping[str, Any]
    chosen: bool


class Leaf(NamedTuple):
    """A value without values inside; None also for a property that is absent."""

    path: str
    value: Any
    parts: Sequence[Part]


class OccursOptions(Options):
    field: str = "values"
    """Which field of the candidate holds the values."""
    text: str = "text"
    """Which field of the candidate, or key of the seed, holds the text."""
    wanted: str = "schema"
    """Which key of the seed holds the schema; without one, values are judged by their types alone."""
    share: float = Field(0.5, gt=0, le=1)
    """Largest share of the text that one string may be: a copy of the text is no value of it."""


@check("occurs", OccursOptions)
def occurs(subject: Subject, options: OccursOptions) -> str | None:
    """Every value must occur in the text: strings as they are, numbers, dates and times as people write them."""
    candidate, seed = subject.candidate.fields, subject.seed.data
    text = part_of({**seed, **candidate}, options.text, "neither the candidate nor the seed")
    values = part_of(candidate, options.field, "the candidate")
    faults = value_faults(values, text, seed.get(options.wanted) or {}, options.share)
    return "; ".join(faults[:TOLD]) or None


def value_faults(values: Any, text: str, schema: Mapping[str, Any], share: float = 1.0) -> list[str]:
    """What of `values` the text does not say, a sentence each."""
    written, longest = read_text(text), share * len(text)
    faults = []
    for leaf in leaves(values, schema):
        too_long = isinstance(leaf.value, str) and len(leaf.value) > longest
        fault = "is most of the text; a value is a small part of it" if too_long else leaf_fault(leaf, written)
        if fault:
            faults.append(f"{leaf.path or 'the value'} {fault}")
    return faults


def check_evidence(schema: Mapping[str, Any]) -> None:
    """See that every `x-evidence` of a schema has the right form.

    Raises:
        BadSchema: naming the place.
    """
    for where, part in parts_in(schema):
        if EVIDENCE not in part:
            continue
        lists = part[EVIDENCE].values() if isinstance(part[EVIDENCE], dict) else [part[EVIDENCE]]
        if not all(isinstance(some, list) and some and all(map(_is_term, some)) for some in lists) or not lists:
            what = "must be a list of words, or such lists by value"
            raise BadSchema(f"{where + ': ' if where else ''}{EVIDENCE} {what}, not {str(part[EVIDENCE])[:80]}")
        values = {_name_of(value) for value in part.get("enum", ())} or _booleans(part)
        if values and isinstance(part[EVIDENCE], dict) and (unknown := set(part[EVIDENCE]) - values):
            known = ", ".join(sorted(values))
            raise BadSchema(f"{where}: {EVIDENCE} names {min(unknown)!r}, which is not one of {known}")


def leaves(value: Any, schema: Mapping[str, Any]) -> Iterator[Leaf]:
    """The leaves of `value` with what `schema` says of each, in the order of `value`, absent properties last."""
    yield from _leaves("", value, [Part(schema, False)], schema)


def leaf_fault(leaf: Leaf, written: Written) -> str | None:
    """Why the text does not say what the leaf does, beginning with a verb."""
    evidence = _evidence(leaf)
    if leaf.value is None:
        return _silence(evidence, written)
    if any("const" in part.schema or len(part.schema.get("enum", ())) == 1 for part in leaf.parts if not part.chosen):
        return None  # the schema says it, whatever the text says
    terms = {key: some for key, some in evidence.items() if key}
    choices = [value for part in leaf.parts for value in _choices(part)]
    if isinstance(leaf.value, bool):
        return _flag_fault(leaf, terms, written) if terms else None
    if isinstance(leaf.value, str) and choices:
        return _choice_fault(leaf.value, {v: [v, *terms.get(v, ())] for v in map(_name_of, choices)}, written)
    if _name_of(leaf.value) in terms and _name_of(leaf.value) in written.speaks_of(terms):
        return None
    return (
        _number_fault(leaf.value, written) if isinstance(leaf.value, int | float) else _text_fault(leaf.value, written)
    )


def _leaves(path: str, value: Any, parts: Sequence[Part], root: Mapping[str, Any]) -> Iterator[Leaf]:
    parts = [one for part in parts for one in _in_place(part, value, root)]
    if isinstance(value, dict):
        yield from _leaves_of_object(path, value, parts, root)
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            below = [Part(found, part.chosen) for part in parts if (found := _item(part.schema, i)) is not None]
            yield from _leaves(f"{path}.{i}".lstrip("."), item, below, root)
    else:
        yield Leaf(path, None if value == [] else value, parts)


def _leaves_of_object(
    path: str, value: dict[str, Any], parts: Sequence[Part], root: Mapping[str, Any]
) -> Iterator[Leaf]:
    named = {name for part in parts for name in part.schema.get("properties", {})}
    spoken_of = any(not KEYS.isdisjoint(part.schema) for part in parts)
    for key, inner in value.items():
        place = f"{path}.{key}".lstrip(".")
        below = [Part(found, part.chosen) for part in parts if (found := _property(part.schema, key)) is not None]
        if key not in named and spoken_of:
            yield Leaf(f"the key {place}", key, ())
        yield from _leaves(place, inner, below, root)
    for name in sorted(named - value.keys()):
        below = [Part(found, part.chosen) for part in parts if (found := _property(part.schema, name)) is not None]
        yield Leaf(f"{path}.{name}".lstrip("."), None, [one for part in below for one in _in_place(part, None, root)])


def _in_place(part: Part, value: Any, root: Mapping[str, Any]) -> Iterator[Part]:
    """The schema and all that it says of the same value through references and combinations."""
    schema = part.schema
    if not isinstance(schema, dict):
        return
    yield part
    if "$ref" in schema:
        yield from _in_place(Part(referred(schema["$ref"], root), part.chosen), value, root)
    for inner in schema.get("allOf", ()):
        yield from _in_place(Part(inner, part.chosen), value, root)
    for key in ("anyOf", "oneOf"):
        branches = [branch for branch in schema.get(key, ()) if branch != {"type": "null"}]
        fitting = [branch for branch in branches if _fits(value, branch, root)]
        for branch in fitting or branches:
            yield from _in_place(Part(branch, part.chosen or len(branches) > 1), value, root)


def _fits(value: Any, branch: Any, root: Mapping[str, Any]) -> bool:
    return bool(validator_of(root, strict=False).evolve(schema=branch).is_valid(value))


def _property(schema: Mapping[str, Any], key: str) -> Any:
    return schema.get("properties", {}).get(key, schema.get("additionalProperties"))


def _item(schema: Mapping[str, Any], index: int) -> Any:
    first = schema.get("prefixItems", ())
    return first[index] if index < len(first) else schema.get("items")


def _choices(part: Part) -> list[Any]:
    """The values that a schema leaves to choose from; null is none of them."""
    values = part.schema.get("enum", [part.schema["const"]] if "const" in part.schema else [])
    return [value for value in values if value is not None]


def _evidence(leaf: Leaf) -> dict[str, list[str]]:
    """Words by the name of the value that they tell; under the empty name, those that tell of the field only."""
    merged: dict[str, list[str]] = {}
    for part in leaf.parts:
        found = part.schema.get(EVIDENCE, {})
        if isinstance(found, list):
            found = {"true" if part.schema.get("type") == "boolean" else "": found}
        for key, some in found.items():
            merged.setdefault(key, []).extend(some)
    return merged


def _silence(evidence: Mapping[str, Sequence[str]], written: Written) -> str | None:
    terms = {term: [term] for some in evidence.values() for term in some}
    if said := written.speaks_of(terms):
        return f"is left empty, but the text says {min(said)!r}"
    return None


def _flag_fault(leaf: Leaf, terms: Mapping[str, Sequence[str]], written: Written) -> str | None:
    """A text cannot tell both of one flag; of the flags of a list's items it can."""
    name, said = _name_of(leaf.value), written.speaks_of(terms)
    in_list = any(step.isdigit() for step in leaf.path.split("."))
    if not in_list and (others := said - {name}):
        return f"is {name}, but the text has words for {min(others)}"
    # Where only the other value has words, a text without them tells this one.
    return None if name not in terms else _choice_fault(name, terms, written)


def _choice_fault(name: str, terms: Mapping[str, Sequence[str]], written: Written) -> str | None:
    if name in written.speaks_of(terms):
        return None
    words = ", ".join(repr(term) for term in terms.get(name, [name])[:4])
    return f"is {name}, but the text has none of {words}"


def _number_fault(value: float, written: Written) -> str | None:
    said = math.isfinite(value) and Fraction(value if isinstance(value, int) else str(value)) in written.numbers
    return None if said else f"is {str(value)[:80]}, a number that is not in the text"


def _text_fault(value: str, written: Written) -> str | None:
    if not any(character.isalnum() for character in value) and not re.search(r"[€$£¥₹₽]", value):
        return f"is {value!r}, which says nothing; use null"
    if folded(value) in NOTHING:
        return f"is {value!r}; what the text does not say is null or left out"
    moment = _moment(value)
    if moment is not None:
        return None if _tells(moment, written) else f"is {value}, which the text does not say {_how(moment)}"
    return None if written.says(value) else f"is {value[:80]!r}, which is not in the text"


def _moment(value: str) -> tuple[date | None, time | None, str] | None:
    """A day, a time of day, or both with a zone, as ISO writes them."""
    day, t, rest = value.partition("T") if ISO_DAY.match(value) else ("", "", value)
    clock = ISO_TIME.fullmatch(rest)
    try:
        on = date.fromisoformat(day) if ISO_DAY.fullmatch(day) else None
        at = time.fromisoformat(clock["clock"]) if clock else None
    except ValueError:
        return None
    if (day and on is None) or ((t or not day) and at is None):
        return None
    return on, at, (clock["zone"] or "") if clock else ""


def _tells(moment: tuple[date | None, time | None, str], written: Written) -> bool:
    day, clock, zone = moment
    zoned = not zone or written.says(zone) or (zone == "Z" and any(map(written.says, ("UTC", "GMT"))))
    stamped = zone and f"{clock}{zone}".casefold() in written.plain
    on, at = day is None or day in written.dates, clock is None or clock in written.times
    return on and at and bool(zoned or stamped)


def _how(moment: tuple[date | None, time | None, str]) -> str:
    return "with day, month and year" if moment[0] else "as a time of day"


def _name_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _booleans(part: Mapping[str, Any]) -> set[str]:
    return {"true", "false"} if part.get("type") == "boolean" else set()


def _is_term(term: Any) -> bool:
    return isinstance(term, str) and bool(loosened(term))
