"""Bounds on JSON schemas that a server expands into a grammar: size, alternatives, repetitions.

llama.cpp expands a schema before it answers other requests, and some schemas of 200 bytes take minutes. Knows no server.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MAX_SCHEMA_BYTES = 20_000
"""Of the schema as JSON."""
MAX_SCHEMA_DEPTH = 32
MAX_PROPERTIES = 200
"""Of one object: the rules for optional ones grow with the square of their number."""
MAX_ALTERNATIVES = 200
"""Ways in which one value may begin, references followed: each is a state of the grammar at once. With 200, a token of
SmolLM2-135M takes a fifth longer than without a grammar; with 1,000, three times as long, and all clients wait.
"""
MAX_REPETITIONS = 2_000
"""In one minItems, maxItems, minLength or maxLength: each repetition is a rule. llama.cpp itself allows no more."""
MAX_TOTAL_REPETITIONS = 20_000
LARGEST_LIMIT = 2**53
"""Of a minimum or maximum."""

EXPRESSIONS = ("pattern", "patternProperties")
"""Regular expressions: nested repetitions multiply, so that no bound on their length helps."""
REPETITIONS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
LOCAL_REFERENCE = re.compile(r"#(/[^/~%]+)*")
"""A `$ref` that every reader follows in the same way: llama.cpp does not decode, and it skips what is before the first slash."""


class GrammarTooLarge(ValueError):
    """A schema beyond a bound; the text says which one, in one sentence."""


def check_grammar_bounds(schema: Any) -> None:
    """Raises GrammarTooLarge if a server could take very long for the grammar of `schema`."""
    if not isinstance(schema, dict):
        raise GrammarTooLarge(f"a JSON schema is an object, not {type(schema).__name__}")
    if _is_deeper(schema, MAX_SCHEMA_DEPTH):
        raise GrammarTooLarge(f"the JSON schema is nested deeper than {MAX_SCHEMA_DEPTH}; flatten it")
    if (
        size := len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
    ) > MAX_SCHEMA_BYTES:
        raise GrammarTooLarge(f"the JSON schema has {size:,} bytes; at most {MAX_SCHEMA_BYTES:,} are allowed")
    parts = [part for _, part in iter_subschemas(schema)]
    for part in parts:
        _check_part(part)
    _check_references(parts, schema)
    total = sum(number for part in parts for number in _repetition_counts(part).values())
    if total > MAX_TOTAL_REPETITIONS:
        raise GrammarTooLarge(
            f"the JSON schema has {total:,} repetitions in all its {', '.join(REPETITIONS[:4])}; at most "
            f"{MAX_TOTAL_REPETITIONS:,} are allowed"
        )
    known: dict[int, int] = {}
    for part in parts:
        try:
            ways = _count_alternatives(part, schema, known, ())
        except RecursionError:
            raise GrammarTooLarge(
                "the JSON schema's references lead from one to the next too often; flatten it"
            ) from None
        if ways > MAX_ALTERNATIVES:
            raise GrammarTooLarge(
                f"the JSON schema gives {ways:,} alternatives for one value, references followed; at most "
                f"{MAX_ALTERNATIVES:,} are allowed"
            )


def simplify_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """`schema` without regular expressions, and without repetitions and enumerations beyond their bounds; None if it exceeds a
    bound even then.
    The sender compares the reply with the whole schema.
    """
    if _is_deeper(schema, MAX_SCHEMA_DEPTH):
        return None
    loose: dict[str, Any] = _drop_costly_keywords(schema)
    try:
        check_grammar_bounds(loose)
    except GrammarTooLarge:
        return None
    return loose


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    below = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in below)


def _check_part(part: Mapping[str, Any]) -> None:
    if found := next((key for key in EXPRESSIONS if key in part), None):
        raise GrammarTooLarge(f"`{found}` in a JSON schema: regular expressions are not allowed here; leave it out")
    for key, number in _repetition_counts(part).items():
        if number > MAX_REPETITIONS:
            raise GrammarTooLarge(f"`{key}` = {number:,} in a JSON schema; at most {MAX_REPETITIONS:,} is allowed")
    for key in LIMITS:
        limit = part.get(key, 0)
        if isinstance(limit, int | float) and not abs(limit) <= LARGEST_LIMIT:
            raise GrammarTooLarge(f"`{key}` in a JSON schema is beyond {LARGEST_LIMIT:,}")
    properties = part.get("properties")
    if isinstance(properties, dict) and len(properties) > MAX_PROPERTIES:
        raise GrammarTooLarge(
            f"a JSON schema with {len(properties):,} properties of one object; at most {MAX_PROPERTIES:,} are allowed"
        )


def _check_references(parts: Sequence[Mapping[str, Any]], root: Mapping[str, Any]) -> None:
    """A server follows a `$ref` to any key: each must lead to one of `parts`, which are checked."""
    checked = set(map(id, parts))
    for part in parts:
        reference = part.get("$ref", "#")
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise GrammarTooLarge("`$ref` in a JSON schema must begin with #: nothing is fetched")
        target = _resolve_reference(reference, root)
        if id(target) not in checked and not isinstance(target, bool):
            raise GrammarTooLarge(
                f"`$ref` {reference[:60]!r} in a JSON schema leads to no schema; define it under `$defs`, and refer to "
                "#/$defs/NAME"
            )


def _repetition_counts(part: Mapping[str, Any]) -> dict[str, float]:
    return {key: part[key] for key in REPETITIONS if isinstance(part.get(key), int | float)}


def _count_alternatives(part: Any, root: Mapping[str, Any], known: dict[int, int], above: tuple[int, ...]) -> int:
    """In how many ways a value of this schema can begin. Stops counting beyond the bound."""
    if not isinstance(part, dict):
        return 1
    if id(part) in above:
        raise GrammarTooLarge("a JSON schema whose `$ref` leads back to itself without a value in between")
    if id(part) in known:
        return known[id(part)]
    here = (*above, id(part))
    ways = 1
    for key in ("anyOf", "oneOf"):
        if isinstance(part.get(key), list):
            ways *= sum(_count_alternatives(choice, root, known, here) for choice in part[key])
    for inner in part["allOf"] if isinstance(part.get("allOf"), list) else ():
        ways *= _count_alternatives(inner, root, known, here)
    if "$ref" in part:
        ways *= _count_alternatives(_resolve_reference(part["$ref"], root), root, known, here)
    if isinstance(part.get("enum"), list):
        ways *= len(part["enum"])
    known[id(part)] = min(max(ways, 1), MAX_ALTERNATIVES + 1)
    return known[id(part)]


def _resolve_reference(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root if LOCAL_REFERENCE.fullmatch(reference) else None
    for step in reference.split("/")[1:]:
        found = found.get(step) if isinstance(found, dict) else None
    if found is None:
        raise GrammarTooLarge(f"`$ref` {reference[:60]!r} in a JSON schema leads nowhere")
    return found


def _drop_costly_keywords(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    return {
        key: map_subschemas(key, value, _drop_costly_keywords)
        for key, value in schema.items()
        if key not in EXPRESSIONS
        and _repetition_counts({key: value}).get(key, 0) <= MAX_REPETITIONS
        and not (key == "enum" and isinstance(value, list) and len(value) > MAX_ALTERNATIVES)
    }


MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTS = ("prefixItems", "allOf", "anyOf", "oneOf", "items")
SINGLE = (
    "items", "additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "contains",
    "propertyNames", "contentSchema", "not", "if", "then", "else",
)  # fmt: skip
"""Keywords that hold subschemas by name, in a list, or alone. `items` held a list in drafts before 2020-12."""


def direct_subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The subschemas that keywords of `schema` hold: keyword, location, subschema."""
    for key, value in schema.items():
        if key in MAPS and isinstance(value, dict):
            yield from ((key, f"{key}.{name}", part) for name, part in value.items())
        elif key in LISTS and isinstance(value, list):
            yield from ((key, f"{key}.{i}", part) for i, part in enumerate(value))
        elif key in SINGLE:
            yield key, key, value


def iter_subschemas(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and all schemas in it, each with its location. Property names and values of `enum` are not schemas."""
    if isinstance(schema, dict):
        yield where, schema
        for _, location, part in direct_subschemas(schema):
            yield from iter_subschemas(part, f"{where}.{location}".lstrip("."))


def map_subschemas(keyword: str, value: Any, change: Callable[[Any], Any]) -> Any:
    """The `value` of a keyword, with `change` applied to each of its subschemas."""
    if keyword in MAPS and isinstance(value, dict):
        return {name: change(part) for name, part in value.items()}
    if keyword in LISTS and isinstance(value, list):
        return [change(part) for part in value]
    return change(value) if keyword in SINGLE else value
