"""JSON Schema (draft 2020-12): whether a schema can be used, whether a value fits it, and the check `schema`.

Fetches nothing: a `$ref` stays inside its schema. Knows no family and no teacher.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, time
from fractions import Fraction
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]
from jsonschema.exceptions import SchemaError, ValidationError, best_match  # type: ignore[import-untyped]
from jsonschema.validators import extend  # type: ignore[import-untyped]
from referencing import Registry

from agents.checks.base import Options, Subject, check

Schema = Mapping[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_CHARACTERS, MAX_DEPTH, MAX_WORK = 20_000, 32, 1_000
"""Of a schema: its JSON text, its nesting, and how many subschemas can look at one value through references. Ten times
what hand-written ones need; references to references can otherwise double at every step."""
MAX_VALUE_NODES, MAX_VALUE_CHARACTERS, MAX_VALUE_DEPTH, MAX_DIGITS = 5_000, 100_000, 32, 40
"""Of a value: more than any reply holds, so that no check takes long; more digits than any number in a text has."""
SHOWN = 200
"""Characters of a fault: it goes into a prompt as advice."""

MAPS = ("properties", "patternProperties", "$defs", "dependentSchemas")
LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
SINGLE = (
    "items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "contains", "propertyNames",
    "not", "if", "then", "else",
)  # fmt: skip
"""Keywords that hold subschemas: by name, in a list, one."""
IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Those whose subschemas look at the same value as the schema that holds them."""
CONDITIONS = ("not", "if", "contains", "propertyNames", "dependentSchemas")
"""Those that ask about a value; made stricter, they would mean something else."""
REFERENCE = re.compile(r"#/\$defs/([\w.-]+)")
REFUSED = ("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor")


class BadSchema(ValueError):
    """A schema that cannot be used; the text says where and why, in one sentence."""


def check_schema(schema: Any) -> None:
    """See that a schema can be used: valid, bounded, and without references that lead out of it or in a circle.

    Raises:
        BadSchema: naming the place.
    """
    if not isinstance(schema, dict):
        raise BadSchema(f"a JSON schema is an object, not {_short(schema)}")
    _written(schema)
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        raise BadSchema(f"$schema: {_short(dialect)} is another dialect; leave it out, or say {DIALECT}")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise BadSchema(_told("the schema is not valid: ", error)) from None
    for where, part in parts_in(schema):
        _check_part(where, part, schema)
    _check_work(schema)


def value_fault(value: Any, schema: Schema, *, strict: bool = True) -> str | None:
    """Why `value` does not fit `schema`, in one sentence that begins with the place; None where it does.

    An integer is written without a point, and a number is finite. `strict` refuses keys that the schema neither names
    nor expressly allows.

    Raises:
        BadSchema: as `check_schema`.
    """
    if fault := _too_large(value):
        return fault
    errors = list(validator_of(schema, strict=strict).iter_errors(value))
    # A key whose value does not fit counts as unevaluated too; what is wrong with the value says more.
    error = best_match([error for error in errors if error.validator != "unevaluatedProperties"] or errors)
    return None if error is None else _told("", error)


def validator_of(schema: Schema, *, strict: bool = True) -> Any:
    """A `jsonschema` validator that fetches nothing. Raises BadSchema as `check_schema`."""
    return _validator(_written(schema), strict)


def _written(schema: Any) -> str:
    """A schema as JSON, within its bounds. Raises BadSchema."""
    if _deeper_than(schema, MAX_DEPTH):
        raise BadSchema(f"the schema is nested deeper than {MAX_DEPTH}; flatten it")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise BadSchema(f"the schema is not JSON: {error}") from None
    if len(text) > MAX_CHARACTERS:
        raise BadSchema(f"the schema has {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    return text


@lru_cache(maxsize=256)
def _validator(text: str, strict: bool) -> Any:
    schema = json.loads(text)
    check_schema(schema)
    # Without its own registry jsonschema would fetch what a $ref names; this one is empty and fetches nothing.
    return _Validator(closed(schema) if strict else schema, registry=Registry(), format_checker=FORMATS)


def closed(schema: Any, here: bool = True) -> Any:
    """`schema` with every object closed to keys that it neither names nor expressly allows.

    What looks at one value through a reference or a combination is closed as a whole. An object of which no key is
    named at all stays open.
    """
    if not isinstance(schema, dict):
        return schema
    strict = {key: _closed_within(key, value) for key, value in schema.items() if key != "$schema"}
    if not here or {"additionalProperties", "unevaluatedProperties"} & schema.keys():
        return strict
    if "$ref" in schema or any(key in schema for key in IN_PLACE):
        return {**strict, "unevaluatedProperties": False}
    return {**strict, "additionalProperties": False} if "properties" in schema else strict


def _closed_within(keyword: str, value: Any) -> Any:
    below = keyword not in IN_PLACE and keyword != "$defs"
    return value if keyword in CONDITIONS else _within(keyword, value, lambda part: closed(part, below))


def without_notes(schema: Any) -> Any:
    """`schema` without keywords that begin with `x-`: notes for checks, which no teacher or student should read."""
    if not isinstance(schema, dict):
        return schema
    return {key: _within(key, value, without_notes) for key, value in schema.items() if not key.startswith("x-")}


def referred(reference: str, root: Schema) -> Any:
    """The schema that a reference of a checked schema names."""
    return root["$defs"][reference.rpartition("/")[2]]


class SchemaOptions(Options):
    field: str = "values"
    """Which field of the candidate must fit."""
    wanted: str = "schema"
    """Which key of the seed holds the schema."""
    strict: bool = True
    """Whether keys are refused that the schema neither names nor expressly allows."""


@check("schema", SchemaOptions)
def schema(subject: Subject, options: SchemaOptions) -> str | None:
    """The values must fit their JSON schema."""
    value = part_of(subject.candidate.fields, options.field, "the candidate")
    fault = value_fault(value, part_of(subject.seed.data, options.wanted, "the seed"), strict=options.strict)
    return f"{options.field} must follow the schema: {fault}" if fault else None


def part_of(whole: Mapping[str, Any], key: str, name: str) -> Any:
    """What `whole` has under `key`. Raises ValueError saying what it has instead."""
    if key not in whole:
        raise ValueError(f"{name} has no {key!r}; it has {', '.join(sorted(whole)) or 'nothing'}")
    return whole[key]


def _within(keyword: str, value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` of a keyword with its subschemas changed."""
    if keyword in MAPS and isinstance(value, dict):
        return {name: change(part) for name, part in value.items()}
    if keyword in LISTS and isinstance(value, list):
        return [change(part) for part in value]
    return change(value) if keyword in SINGLE else value


def _parts(schema: Schema) -> Iterator[tuple[str, str, Any]]:
    """The subschemas that stand directly in `schema`: keyword, place, subschema."""
    for key, value in schema.items():
        if key in MAPS:
            yield from ((key, f"{key}.{name}", part) for name, part in value.items())
        elif key in LISTS:
            yield from ((key, f"{key}.{i}", part) for i, part in enumerate(value))
        elif key in SINGLE:
            yield key, key, value


def parts_in(schema: Any, where: str = "") -> Iterator[tuple[str, Schema]]:
    """A schema and all schemas in it, each with its place."""
    if isinstance(schema, dict):
        yield where, schema
        for _, place, part in _parts(schema):
            yield from parts_in(part, f"{where}.{place}".lstrip("."))


def _check_part(where: str, part: Schema, root: Schema) -> None:
    at = f"{where}: " if where else ""
    refused = [key for key in REFUSED if key in part]
    refused += [key for key in ("$id", "$schema", "$defs") if where and key in part]
    if refused:
        raise BadSchema(f"{at}{refused[0]} is not supported here; only #/$defs/NAME of the schema itself is followed")
    if "$ref" not in part:
        return
    found = REFERENCE.fullmatch(part["$ref"])
    if not found:
        raise BadSchema(f"{at}$ref must be #/$defs/NAME, not {_short(part['$ref'])}; nothing is fetched")
    if found.group(1) not in root.get("$defs", {}):
        there = ", ".join(root.get("$defs", {})) or "nothing"
        raise BadSchema(f"{at}$ref names {found.group(1)!r}, which is not in $defs; there is {there}")


def _check_work(root: Schema) -> None:
    """Raises BadSchema where references lead in a circle without going down, or to too much work for one value."""
    costs: dict[str, int] = {}

    def cost(schema: Any, path: tuple[str, ...]) -> int:
        if not isinstance(schema, dict):
            return 1
        straight = sum(cost(part, path) for key, _, part in _parts(schema) if key in IN_PLACE)
        return 1 + straight + (named(schema["$ref"].rpartition("/")[2], path) if "$ref" in schema else 0)

    def named(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            raise BadSchema(f"$defs.{name} refers to itself without going down into the value")
        if name not in costs:
            costs[name] = cost(root["$defs"][name], (*path, name))
        return costs[name]

    for where, part in parts_in(root):
        if cost(part, ()) > MAX_WORK:
            raise BadSchema(
                f"{where or 'the schema'}: more than {MAX_WORK:,} subschemas look at one value; simplify it"
            )


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return False
    return True


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _too_large(value: Any) -> str | None:
    level, nodes, characters = [value], 0, 0
    for _ in range(MAX_VALUE_DEPTH + 1):
        nodes += len(level)
        for one in level:
            if isinstance(one, int) and abs(one) >= 10**MAX_DIGITS:
                return f"a number has more than {MAX_DIGITS} digits"
            characters += len(one) if isinstance(one, str) else sum(map(len, one)) if isinstance(one, dict) else 0
        if nodes > MAX_VALUE_NODES or characters > MAX_VALUE_CHARACTERS:
            return f"it is too large: at most {MAX_VALUE_NODES:,} values and {MAX_VALUE_CHARACTERS:,} characters"
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return None
    return f"it is nested deeper than {MAX_VALUE_DEPTH}"


def _told(before: str, error: Any) -> str:
    place = ".".join(map(str, error.absolute_path))
    return _short(f"{before}{place + ': ' if place else ''}{error.message}", quoted=False)


def _short(value: Any, *, quoted: bool = True) -> str:
    text = repr(value) if quoted else str(value)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


FORMATS = FormatChecker(["date", "email", "ipv4", "ipv6", "uuid", "regex"])
"""Formats that are cheap to check exactly; of others, a schema's `pattern` can tell more."""
DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
CLOCK = re.compile(r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@FORMATS.checks("date-time", raises=ValueError)  # type: ignore[untyped-decorator]
def _is_date_time(value: object) -> bool:
    """RFC 3339: a date, T, a time with its offset."""
    if not isinstance(value, str):
        return True
    day, t, clock = value.partition("T")
    return bool(t and DAY.fullmatch(day) and CLOCK.fullmatch(clock) and datetime.fromisoformat(value))


@FORMATS.checks("time", raises=ValueError)  # type: ignore[untyped-decorator]
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or bool(CLOCK.fullmatch(value) and time.fromisoformat(value) is not None)


def _is_integer(_checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: Any, value: Any) -> bool:
    return _is_integer(checker, value) or (isinstance(value, float) and math.isfinite(value))


def _multiple_of(_validator: Any, step: Any, value: Any, _schema: Any) -> Iterator[Any]:
    """By decimal digits: in binary, 19.99 is no multiple of 0.01."""
    if _is_number(None, value) and (Fraction(str(value)) / Fraction(str(step))).denominator != 1:
        yield ValidationError(f"{value!r} is not a multiple of {step}")


_Validator = extend(
    Draft202012Validator,
    validators={"multipleOf": _multiple_of},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer).redefine("number", _is_number),
)
