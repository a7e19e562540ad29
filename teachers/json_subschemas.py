"""The subschemas of a JSON schema: which keywords hold them, and how to visit or replace them.

Accepts schemas that are not valid. Knows no validator, no grammar and no bound.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

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
