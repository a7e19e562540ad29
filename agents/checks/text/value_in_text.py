"""The check `occurs`: every value of a structure occurs in a text, or words from its schema do.

Words about a list item count only in the sentences about this item. Knows no family and no teacher. It cannot see whether a
value that occurs in the text belongs to its field.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time
from fractions import Fraction
from typing import Any, NamedTuple

from pydantic import Field

from agents.checks.base import Options, Subject, check
from agents.checks.json_schema import InvalidSchema, build_validator, get_required, resolve_reference
from agents.checks.text.item_clauses import ISO_DAY, ItemClauses, find_enclosing_item, locate_items
from agents.checks.text.layouts import read_flags, read_layout
from agents.checks.text.quantities import WrittenText, read_written
from agents.checks.text.text_units import fold_text, loosen_text
from teachers.grammar_bounds import iter_subschemas

EVIDENCE_KEYWORD = "x-evidence"
"""A keyword in addition to the standard's: words that express a value, as lists by value (enums, booleans, codes), or one
list of words, at least one of which every text about the field contains."""
INFERRED_KEYWORD = "x-inferred"
"""A keyword at a choice that the text shows and does not name, so that no word of it is sought."""
EMPTY_WORDS = set("n/a na none null nil unknown unspecified tbd tba - -- ? nothing undefined".split()) | {
    "not specified", "not given", "not mentioned", "not stated", "not provided", "not available", "not applicable",
}  # fmt: skip
"""Texts that mean no value, where null is right."""
MAX_REPORTED_FAULTS = 3
"""Faults in one verdict: more than a revision repairs."""
PROPERTY_KEYWORDS = {"properties", "patternProperties", "additionalProperties"}
"""Keywords about an object's keys; a schema without them does not distinguish keys from values."""
RANK_FIELDS = {"place", "rank", "position", "placing", "ranking"}
"""Fields whose number is a rank, which texts give without the field's name: `Third came Dunja`."""
RANK_NAMES = {1: re.compile(r"\b(?:winners?|won|wins)\b"), 2: re.compile(r"\brunners?-up\b")}
DENIAL = re.compile(r"^\W*(?:no|not|non|without)\s+")
"""Before the words of a label or the name of a flag."""
ISO_TIME = re.compile(r"(?P<clock>\d\d:\d\d(?::\d\d)?)(?:\.0+)?(?P<zone>Z|[+-]\d\d:\d\d)?")


class SchemaPart(NamedTuple):
    """A schema that applies to a value; `chosen` if it is one of several alternatives."""

    schema: Mapping[str, Any]
    chosen: bool


class ValueLeaf(NamedTuple):
    """A value that contains no values; None also for an absent property."""

    path: str
    value: Any
    parts: Sequence[SchemaPart]


class OccursOptions(Options):
    field: str = "values"
    text: str = "text"
    wanted: str = "schema"
    """The schema."""
    share: float = Field(0.5, gt=0, le=1)
    """Largest share of the text in one string."""


@check("occurs", OccursOptions, languages=("en",))
def occurs_check(subject: Subject, options: OccursOptions) -> str | None:
    """Every value must occur in the text: strings as they are, numbers, dates and times as people write them."""
    candidate, seed = subject.candidate.fields, subject.seed.data
    text = get_required({**seed, **candidate}, options.text, "neither the candidate nor the seed")
    values = get_required(candidate, options.field, "the candidate")
    faults = find_value_faults(values, text, seed.get(options.wanted) or {}, options.share)
    return "; ".join(faults[:MAX_REPORTED_FAULTS]) or None


def find_value_faults(values: Any, text: str, schema: Mapping[str, Any], share: float) -> list[str]:
    """The values that the text does not contain, a sentence each."""
    longest, text = share * len(text), read_layout(text)
    written = read_written(text)
    leaves = [
        leaf
        for leaf in iter_leaves(values, schema)
        if not any(part.schema.get(INFERRED_KEYWORD) for part in leaf.parts)
    ]
    items = locate_items(values, {leaf.path: leaf.value for leaf in leaves if not is_choice(leaf)}, text)
    faults = []
    for leaf in leaves:
        too_long = isinstance(leaf.value, str) and len(leaf.value) > longest
        fault = "is most of the text; a value is a small part of it" if too_long else None
        item = find_enclosing_item(leaf.path, items)
        fault = fault or find_leaf_fault(leaf, written, item) or (_misplaced_fault(leaf, item) if item else None)
        if fault:
            faults.append(f"{leaf.path or 'the value'} {fault}")
    return faults


def validate_evidence(schema: Mapping[str, Any]) -> None:
    """Check the form of every `x-evidence` of a schema.

    Raises:
        InvalidSchema: with the location.
    """
    for where, part in iter_subschemas(schema):
        if EVIDENCE_KEYWORD not in part:
            continue
        lists = (
            part[EVIDENCE_KEYWORD].values() if isinstance(part[EVIDENCE_KEYWORD], dict) else [part[EVIDENCE_KEYWORD]]
        )
        usable = all(
            isinstance(some, list) and some and all(isinstance(term, str) and loosen_text(term) for term in some)
            for some in lists
        )
        if not usable or not lists:
            what = "must be a list of words, or such lists by value"
            raise InvalidSchema(
                f"{where + ': ' if where else ''}{EVIDENCE_KEYWORD} {what}, not {str(part[EVIDENCE_KEYWORD])[:80]}"
            )
        values = {_choice_name(value) for value in part.get("enum", ())}
        if not values and part.get("type") == "boolean":
            values = {"true", "false"}
        if values and isinstance(part[EVIDENCE_KEYWORD], dict) and (unknown := set(part[EVIDENCE_KEYWORD]) - values):
            known = ", ".join(sorted(values))
            raise InvalidSchema(f"{where}: {EVIDENCE_KEYWORD} names {min(unknown)!r}, which is not one of {known}")


def iter_leaves(value: Any, schema: Mapping[str, Any]) -> Iterator[ValueLeaf]:
    """The leaves of `value` with the parts of `schema` for each, in the order of `value`, absent properties last."""
    yield from _iter_value_leaves("", value, [SchemaPart(schema, False)], schema)


def _misplaced_fault(leaf: ValueLeaf, item: ItemClauses) -> str | None:
    """The fault of a number, day or time of an item that only clauses about other items have; None for others."""
    if leaf.value is None or isinstance(leaf.value, bool) or is_choice(leaf) or not item.named_others:
        return None
    found = {at for at, clause in enumerate(item.all) if find_leaf_fault(leaf, clause) is None}
    if not found or not found <= item.named_others:
        return None
    return f"is {str(leaf.value)[:80]!r}, but the text says so of another item: {item.all[min(found)].text[:80]!r}"


def find_leaf_fault(leaf: ValueLeaf, written: WrittenText, item: ItemClauses | None = None) -> str | None:
    """Why the text does not support the leaf, beginning with a verb; None if it does.

    Args:
        leaf: the value, or None for an absent one.
        written: the text.
        item: the clauses about the list item that contains the leaf; None outside of lists and in a list of one item.
    """
    evidence = _leaf_evidence(leaf)
    if leaf.value is None:
        terms = {term: [term] for words in evidence.values() for term in words}
        if item is None:
            mentioned = written.mentioned_terms(terms)
        else:
            mentioned = set[str]().union(*(clause.mentioned_terms(terms) for clause in item.own))
        about = "" if item is None else " of this item"
        return f"is left empty, but the text says {min(mentioned)!r}{about}" if mentioned else None
    if any("const" in part.schema or len(part.schema.get("enum", ())) == 1 for part in leaf.parts if not part.chosen):
        return None  # the schema allows no other value
    terms = {key: some for key, some in evidence.items() if key}
    choices = []
    for part in leaf.parts:
        allowed = part.schema.get("enum", [part.schema["const"]] if "const" in part.schema else [])
        choices += [value for value in allowed if value is not None]
    if isinstance(leaf.value, bool):
        return _flag_fault(leaf, terms, written, item)
    if isinstance(leaf.value, str) and choices:
        named = {v: [v, *terms.get(v, ())] for v in map(_choice_name, choices)}
        return _choice_fault(leaf.value, named, written, item)
    if (name := _choice_name(leaf.value)) in terms and name in written.mentioned_terms(terms, by_subject=True):
        return None
    if not isinstance(leaf.value, int | float):
        return _text_fault(leaf.value, written)
    return _number_fault(leaf, leaf.value, written, item)


def _iter_value_leaves(
    path: str, value: Any, parts: Sequence[SchemaPart], root: Mapping[str, Any]
) -> Iterator[ValueLeaf]:
    parts = [same for part in parts for same in _same_value_parts(part, value, root)]
    if isinstance(value, dict):
        yield from _iter_object_leaves(path, value, parts, root)
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            below = _select_parts(parts, _item_schema, i)
            yield from _iter_value_leaves(f"{path}.{i}".lstrip("."), item, below, root)
    else:
        yield ValueLeaf(path, None if value == [] else value, parts)


def _iter_object_leaves(
    path: str, value: dict[str, Any], parts: Sequence[SchemaPart], root: Mapping[str, Any]
) -> Iterator[ValueLeaf]:
    named = {name for part in parts for name in part.schema.get("properties", {})}
    spoken_of = any(not PROPERTY_KEYWORDS.isdisjoint(part.schema) for part in parts)
    for key, inner in value.items():
        location = f"{path}.{key}".lstrip(".")
        below = _select_parts(parts, _property_schema, key)
        if key not in named and spoken_of:
            yield ValueLeaf(f"the key {location}", key, ())
        yield from _iter_value_leaves(location, inner, below, root)
    for name in sorted(named - value.keys()):
        below = _select_parts(parts, _property_schema, name)
        yield ValueLeaf(
            f"{path}.{name}".lstrip("."), None, [same for part in below for same in _same_value_parts(part, None, root)]
        )


def _same_value_parts(part: SchemaPart, value: Any, root: Mapping[str, Any]) -> Iterator[SchemaPart]:
    """The schema, and those that apply to the same value through references and combinations."""
    schema = part.schema
    if not isinstance(schema, dict):
        return
    yield part
    if "$ref" in schema:
        yield from _same_value_parts(SchemaPart(resolve_reference(schema["$ref"], root), part.chosen), value, root)
    for inner in schema.get("allOf", ()):
        yield from _same_value_parts(SchemaPart(inner, part.chosen), value, root)
    for key in ("anyOf", "oneOf"):
        branches = [branch for branch in schema.get(key, ()) if branch != {"type": "null"}]
        fitting = [
            branch for branch in branches if build_validator(root, strict=False).evolve(schema=branch).is_valid(value)
        ]
        for branch in fitting or branches:
            yield from _same_value_parts(SchemaPart(branch, part.chosen or len(branches) > 1), value, root)


def _select_parts(parts: Sequence[SchemaPart], find: Callable[[Any, Any], Any], key: str | int) -> list[SchemaPart]:
    """What `find` finds in each part under a key."""
    found = [(find(part.schema, key), part.chosen) for part in parts]
    return [SchemaPart(schema, chosen) for schema, chosen in found if schema is not None]


def _property_schema(schema: Mapping[str, Any], key: str) -> Any:
    return schema.get("properties", {}).get(key, schema.get("additionalProperties"))


def _item_schema(schema: Mapping[str, Any], index: int) -> Any:
    first = schema.get("prefixItems", ())
    return first[index] if index < len(first) else schema.get("items")


def _leaf_evidence(leaf: ValueLeaf) -> dict[str, list[str]]:
    """Words by the name of the value that they express; under the empty name, words about the field only."""
    merged: dict[str, list[str]] = {}
    for part in leaf.parts:
        evidence = part.schema.get(EVIDENCE_KEYWORD, {})
        if isinstance(evidence, list):
            evidence = {"true" if part.schema.get("type") == "boolean" else "": evidence}
        for key, some in evidence.items():
            merged.setdefault(key, []).extend(some)
    return merged


def is_choice(leaf: ValueLeaf) -> bool:
    """Whether the schema lists the values that are allowed."""
    return any({"enum", "const"} & part.schema.keys() for part in leaf.parts)


def _find_marked_flags(
    leaf: ValueLeaf, terms: Mapping[str, Sequence[str]], written: WrittenText, item: ItemClauses | None
) -> set[bool]:
    """What labels with yes or no say of a flag: labels that have its name or a word for it, in clauses of its item."""
    name, values = loosen_text(leaf.path.rpartition(".")[2]), set[bool]()
    bare_name = DENIAL.sub("", name)
    for clause in [written] if item is None else item.own:
        for label, value in read_flags(clause.text):
            said, bare = WrittenText(label).mentioned_terms(terms), DENIAL.sub("", label := loosen_text(label))
            named = set(bare_name.split()) <= set(bare.split()) or "true" in WrittenText(bare).mentioned_terms(terms)
            if named and not said:
                said = {"true" if (bare == label) == (bare_name == name) else "false"}
            values |= {value == (key == "true") for key in said}
    return values


def _flag_fault(
    leaf: ValueLeaf, terms: Mapping[str, Sequence[str]], written: WrittenText, item: ItemClauses | None
) -> str | None:
    """A text cannot express both values of one flag; for flags of list items it can."""
    if marked := _find_marked_flags(leaf, terms, written, item):
        fault = f"is {_choice_name(leaf.value)}, but its label has yes or no otherwise"
        return fault if marked - {leaf.value} else None
    name, mentioned = _choice_name(leaf.value), written.mentioned_terms(terms, by_subject=True)
    in_list = any(step.isdigit() for step in leaf.path.split("."))
    if not in_list and (others := mentioned - {name}):
        return f"is {name}, but the text has words for {min(others)}"
    # If only the other value has words, a text without them expresses this value.
    return None if name not in terms else _choice_fault(name, terms, written, item)


def _choice_fault(
    name: str, terms: Mapping[str, Sequence[str]], written: WrittenText, item: ItemClauses | None
) -> str | None:
    if name in written.mentioned_terms(terms, by_subject=True):
        if item is None:
            return None
        said = set[str]().union(*(clause.mentioned_terms(terms, by_subject=True) for clause in item.own))
        if said and name not in said:
            return f"is {name}, but the text has words for {min(said)} of this item"
        saying = _clauses_with(name, terms, item)
        if not item.are_foreign(saying):
            return None
        return f"is {name}, but the text says so of another item: {saying[0].text[:80]!r}"
    words = ", ".join(repr(term) for term in terms.get(name, [name])[:4])
    return f"is {name}, but the text has none of {words}"


def _number_fault(leaf: ValueLeaf, value: float, written: WrittenText, item: ItemClauses | None) -> str | None:
    exact = str(value) if isinstance(value, float) else value
    if math.isfinite(value) and Fraction(exact) in written.numbers:
        return None
    if isinstance(value, int) and _has_ordinal(leaf, value, written, item):
        return None
    return f"is {str(value)[:80]}, a number that is not in the text"


def _clauses_with(name: str, terms: Mapping[str, Sequence[str]], item: ItemClauses) -> list[WrittenText]:
    return [clause for clause in item.all if name in clause.mentioned_terms(terms, by_subject=True)]


def _has_ordinal(leaf: ValueLeaf, value: int, written: WrittenText, item: ItemClauses | None) -> bool:
    """Whether an ordinal gives an integer: before the field's name (`second floor`), or as a rank, of a list item in a clause
    that does not speak of other items only.
    """
    name = leaf.path.rpartition(".")[2].replace("_", " ").casefold()
    rank = name in RANK_FIELDS
    if not rank and (name.endswith("s") or not name):
        return False  # a count: "the first days" are not one day
    clauses = [written] if item is None else [clause for i, clause in enumerate(item.all) if i not in item.foreign]
    by_name = RANK_NAMES.get(value) if rank else None
    return any(
        clause.has_ordinal(value, "" if rank else name) or (by_name and by_name.search(clause.folded))
        for clause in clauses
    )


def _text_fault(value: str, written: WrittenText) -> str | None:
    if not any(character.isalnum() for character in value) and not re.search(r"[€$£¥₹₽]", value):
        return f"is {value!r}, which says nothing; use null"
    if fold_text(value) in EMPTY_WORDS:
        return f"is {value!r}; what the text does not say is null or left out"
    # A day, a time of day, or both with a zone, as ISO writes them
    date_part, t, time_part = value.partition("T") if ISO_DAY.match(value) else ("", "", value)
    match = ISO_TIME.fullmatch(time_part)
    try:
        day = date.fromisoformat(date_part) if ISO_DAY.fullmatch(date_part) else None
        clock = time.fromisoformat(match["clock"]) if match else None
    except ValueError:
        day = clock = None
    if (day or not date_part) and (clock or (date_part and not t)):
        zone = (match["zone"] or "") if match else ""
        names = (zone, "UTC", "GMT") if zone == "Z" else (zone,)
        zoned = not zone or any(map(written.contains_phrase, names))
        stamped = zone and f"{clock}{zone}".casefold() in written.folded
        on, at = day is None or day in written.dates, clock is None or clock in written.times
        if on and at and (zoned or stamped):
            return None
        return f"is {value}, which the text does not say {'with day, month and year' if day else 'as a time of day'}"
    return None if written.contains_phrase(value) else f"is {value[:80]!r}, which is not in the text"


def _choice_name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
