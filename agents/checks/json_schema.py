"""JSON Schema (draft 2020-12): whether a schema can be used, whether a value fits it, and the check `schema`.

It also reads JSON strictly, as RFC 8259 has it: no NaN, no Infinity, no key twice. Regular expressions of a schema are untrusted
and matched in time linear in the text. The engine is Rust's `regex`, a dependency of pydantic: a finite automaton without
look-around or backreferences. Python's `re` backtracks, so `^(a+)+$` takes minutes for a text of 33 characters.

Fetches nothing: a `$ref` stays inside its schema. Knows no family and no teacher.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, time
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any, NoReturn

from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]
from jsonschema.exceptions import SchemaError, ValidationError, best_match  # type: ignore[import-untyped]
from jsonschema.validators import extend  # type: ignore[import-untyped]
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from referencing import Registry

from agents.checks.base import Options, Subject, check
from teachers.grammar_bounds import direct_subschemas, iter_subschemas, map_subschemas

# Untrusted patterns


MAX_STEPS = 2_000
"""Of a pattern: its parts with repetitions written out, `[a-z]{2,40}` being 40. An automaton can be in all of them at once, so
their number times the length of a text bounds the time: 6 s for 100,000 characters at the worst, a millisecond as a rule."""
TOKEN = re.compile(
    r"\\[pPxuU]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]?|\((?:\?(?:P?<\w+>|[ims-]*:))?|\{(\d*)(,?)(\d*)\}|.", re.DOTALL
)
"""An escape, a class, the beginning of a group, a repetition, or another character."""
MAX_PATTERN_CHARACTERS = 80


class InvalidPattern(ValueError):
    """A pattern that is not supported; the text is the reason."""


def matches_pattern(pattern: str, text: str) -> bool:
    """Whether `pattern` is found somewhere in `text`. Raises InvalidPattern as `count_pattern_steps`."""
    return bool(_compile_pattern(pattern).isinstance_python(text))


def count_pattern_steps(pattern: str) -> int:
    """How many parts a pattern has with its repetitions written out.

    Raises:
        InvalidPattern: if it cannot be matched in linear time, or is too large.
    """
    _compile_pattern(pattern)
    groups, last = [0], 0
    for token in TOKEN.finditer(pattern):
        text = token.group()
        if text == "(" and pattern.startswith("?", token.end()):
            raise InvalidPattern(
                f"{_short_pattern(pattern)} has a group with flags; groups here are `(…)`, `(?:…)` and `(?<name>…)`"
            )
        if text.startswith("("):
            groups.append(0)
        elif text in "*+?":
            continue
        elif text.startswith("{") and len(text) > 1:
            times = max(int(token[3] or 0), int(token[1] or 0) + (token[2] == "," and not token[3]), 1)
            groups[-1] += last * (times - 1)
            last *= times
        else:
            last = max(1, groups.pop()) if text == ")" else 1
            groups[-1] += last
    if groups[0] > MAX_STEPS:
        raise InvalidPattern(
            f"{_short_pattern(pattern)} has {groups[0]:,} parts with repetitions written out; {MAX_STEPS:,} are allowed"
        )
    return groups[0]


@lru_cache(maxsize=1024)
def _compile_pattern(pattern: str) -> SchemaValidator:
    try:
        pattern.encode()  # with a lone surrogate, pydantic would leave it to Python's `re`
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except (PatternError, UnicodeError) as error:
        why = str(error).rpartition("rror: ")[2].strip()
        raise InvalidPattern(f"{_short_pattern(pattern)} is not a 'regex' here: {why}") from None


def _short_pattern(pattern: str) -> str:
    return repr(pattern if len(pattern) <= MAX_PATTERN_CHARACTERS else f"{pattern[:MAX_PATTERN_CHARACTERS]}…")


# Schemas

JsonSchema = Mapping[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_CHARACTERS, MAX_DEPTH, MAX_WORK = 20_000, 32, 1_000
"""Of a schema: the length of its JSON, its nesting, and how many subschemas apply to one value through references. Ten times
the need of hand-written schemas; references to references can otherwise double at every step."""
MAX_VALUE_NODES, MAX_VALUE_CHARACTERS, MAX_VALUE_DEPTH, MAX_DIGITS = 5_000, 100_000, 32, 40
"""Of a value: more than any reply contains, so that no check takes long; more digits than any number in a text."""
MAX_SHOWN_CHARACTERS = 200
"""Characters of a fault: it goes into a prompt as advice."""

SAME_VALUE_KEYWORDS = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords whose subschemas apply to the same value as the schema that contains them."""
CONDITIONS = ("not", "if", "contains", "propertyNames", "dependentSchemas")
"""Keywords that test a value; if their subschemas were closed, they would mean something else."""
REFERENCE = re.compile(r"#/\$defs/([\w.-]+)")
REFUSED_KEYWORDS = ("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor")


class InvalidSchema(ValueError):
    """A schema that cannot be used; the text is one sentence with the location and the reason."""


def validate_schema(schema: Any) -> None:
    """Check that a schema is valid, bounded, and without references that leave it or are circular.

    Raises:
        InvalidSchema: with the location.
    """
    if not isinstance(schema, dict):
        raise InvalidSchema(f"a JSON schema is an object, not {_short_text(schema)}")
    _schema_json(schema)
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        raise InvalidSchema(f"$schema: {_short_text(dialect)} is another dialect; leave it out, or say {DIALECT}")
    try:
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(()))
    except SchemaError as error:
        raise InvalidSchema(_describe_schema_error("the schema is not valid: ", error)) from None
    defined = schema.get("$defs", {})
    for where, part in iter_subschemas(schema):
        at = f"{where}: " if where else ""
        refused = [key for key in REFUSED_KEYWORDS if key in part]
        refused += [key for key in ("$id", "$schema", "$defs") if where and key in part]
        if refused:
            raise InvalidSchema(
                f"{at}{refused[0]} is not supported here; only #/$defs/NAME of the schema itself is followed"
            )
        if "$ref" not in part:
            continue
        match = REFERENCE.fullmatch(part["$ref"])
        if not match:
            raise InvalidSchema(f"{at}$ref must be #/$defs/NAME, not {_short_text(part['$ref'])}; nothing is fetched")
        if match.group(1) not in defined:
            names = ", ".join(defined) or "nothing"
            raise InvalidSchema(f"{at}$ref names {match.group(1)!r}, which is not in $defs; there is {names}")
    _check_patterns(schema)
    try:
        _check_work(schema)
    except RecursionError:
        raise InvalidSchema("the schema's references lead from one to the next too often; flatten it") from None


def find_schema_fault(value: Any, schema: JsonSchema, *, strict: bool = True) -> str | None:
    """Why `value` does not fit `schema`, in one sentence that begins with the location; None if it fits.

    An integer is written without a point, and a number is finite. `strict` refuses keys that the schema neither names
    nor explicitly allows.

    Raises:
        InvalidSchema: as `validate_schema`.
    """
    level, nodes, characters = [value], 0, 0
    for _ in range(MAX_VALUE_DEPTH + 1):
        nodes += len(level)
        for item in level:
            if isinstance(item, int) and abs(item) >= 10**MAX_DIGITS:
                return f"a number has more than {MAX_DIGITS} digits"
            characters += len(item) if isinstance(item, str) else sum(map(len, item)) if isinstance(item, dict) else 0
        if nodes > MAX_VALUE_NODES or characters > MAX_VALUE_CHARACTERS:
            return f"it is too large: at most {MAX_VALUE_NODES:,} values and {MAX_VALUE_CHARACTERS:,} characters"
        level = [inner for item in level for inner in _inner_values(item)]
    if level:
        return f"it is nested deeper than {MAX_VALUE_DEPTH}"
    errors = list(build_validator(schema, strict=strict).iter_errors(value))
    # A key whose value does not fit counts as unevaluated too; the fault of the value is more useful.
    error = best_match([error for error in errors if error.validator != "unevaluatedProperties"] or errors)
    return None if error is None else _describe_schema_error("", error)


def build_validator(schema: JsonSchema, *, strict: bool = True) -> Any:
    """A `jsonschema` validator that fetches nothing. Raises InvalidSchema as `validate_schema`."""
    return _cached_validator(_schema_json(schema), strict)


def _schema_json(schema: Any) -> str:
    """A schema as JSON, within its bounds. Raises InvalidSchema."""
    level = [schema]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _inner_values(outer)]
    if level:
        raise InvalidSchema(f"the schema is nested deeper than {MAX_DEPTH}; flatten it")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise InvalidSchema(f"the schema is not JSON: {error}") from None
    if len(text) > MAX_CHARACTERS:
        raise InvalidSchema(f"the schema has {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    return text


@lru_cache(maxsize=1024)  # more than the schemas of a seeds file as ours: a check of one takes 10 ms
def _cached_validator(text: str, strict: bool) -> Any:
    schema = json.loads(text)
    validate_schema(schema)
    # With its default registry jsonschema fetches the target of a $ref; an empty registry fetches nothing.
    return _Validator(close_objects(schema) if strict else schema, registry=Registry(), format_checker=FORMATS)


def close_objects(schema: Any, here: bool = True) -> Any:
    """`schema` with every object closed to keys that it neither names nor explicitly allows.

    Subschemas that apply to one value through references or combinations are closed together. An object schema that names
    no key stays open.
    """
    if not isinstance(schema, dict):
        return schema
    strict = {}
    for key, value in schema.items():
        if key != "$schema":
            close = partial(close_objects, here=key not in SAME_VALUE_KEYWORDS and key != "$defs")
            strict[key] = value if key in CONDITIONS else map_subschemas(key, value, close)
    if not here or {"additionalProperties", "unevaluatedProperties"} & schema.keys():
        return strict
    if "$ref" in schema or any(key in schema for key in SAME_VALUE_KEYWORDS):
        return {**strict, "unevaluatedProperties": False}
    return {**strict, "additionalProperties": False} if "properties" in schema else strict


def remove_notes(schema: Any) -> Any:
    """`schema` without keywords that begin with `x-`: notes for checks, which no teacher or student should read."""
    if not isinstance(schema, dict):
        return schema
    return {key: map_subschemas(key, value, remove_notes) for key, value in schema.items() if not key.startswith("x-")}


def describe_booleans(schema: Any) -> Any:
    """`schema` without notes, in which the description of each boolean says what its values mean, as far as notes say so.

    Who reads `"law": {"type": "boolean"}` cannot know that it asks whether a find was reported.
    """
    if not isinstance(schema, dict):
        return schema
    plain = {k: map_subschemas(k, value, describe_booleans) for k, value in schema.items() if not k.startswith("x-")}
    kinds, notes = schema.get("type"), schema.get("x-evidence")
    if "boolean" in ([kinds] if isinstance(kinds, str) else kinds or ()) and isinstance(notes, dict):
        meant = [f"{side}: {words[0]}" for side in ("true", "false") if (words := notes.get(side))]
        described = [text for text in [schema.get("description")] if text]
        plain["description"] = "; ".join([*described, *meant])
    return plain


def resolve_reference(reference: str, root: JsonSchema) -> Any:
    """The schema that a reference of a checked schema names."""
    return root["$defs"][reference.rpartition("/")[2]]


class SchemaOptions(Options):
    field: str = "values"
    wanted: str = "schema"
    """The schema."""
    strict: bool = True
    """Refuse keys that the schema neither names nor allows."""


@check("schema", SchemaOptions)
def schema_check(subject: Subject, options: SchemaOptions) -> str | None:
    """The values must fit their JSON schema."""
    value = get_required(subject.candidate.fields, options.field, "the candidate")
    fault = find_schema_fault(value, get_required(subject.seed.data, options.wanted, "the seed"), strict=options.strict)
    return f"{options.field} must follow the schema: {fault}" if fault else None


def get_required(whole: Mapping[str, Any], key: str, name: str) -> Any:
    """What `whole` has under `key`. Raises ValueError saying what it has instead."""
    if key not in whole:
        raise ValueError(f"{name} has no {key!r}; it has {', '.join(sorted(whole)) or 'nothing'}")
    return whole[key]


def _check_patterns(root: JsonSchema) -> None:
    """Raises InvalidSchema where a pattern cannot be matched in linear time, or where all of them together are too large."""
    steps = 0
    for where, part in iter_subschemas(root):
        patterns = [part["pattern"]] if "pattern" in part else []
        for pattern in (*patterns, *part.get("patternProperties", ())):
            try:
                steps += count_pattern_steps(pattern)
            except InvalidPattern as error:
                raise InvalidSchema(f"{where + ': ' if where else ''}{error}") from None
    if steps > MAX_STEPS:
        raise InvalidSchema(
            f"its patterns have {steps:,} parts with repetitions written out; at most {MAX_STEPS:,} are allowed"
        )


def _check_work(root: JsonSchema) -> None:
    """Raises InvalidSchema if references are circular for one value, or apply too many subschemas to it."""
    costs: dict[str, int] = {}

    def cost(schema: Any, path: tuple[str, ...]) -> int:
        if not isinstance(schema, dict):
            return 1
        straight = sum(cost(part, path) for key, _, part in direct_subschemas(schema) if key in SAME_VALUE_KEYWORDS)
        return 1 + straight + (named(schema["$ref"].rpartition("/")[2], path) if "$ref" in schema else 0)

    def named(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            raise InvalidSchema(f"$defs.{name} refers to itself without going down into the value")
        if name not in costs:
            costs[name] = cost(root["$defs"][name], (*path, name))
        return costs[name]

    for where, part in iter_subschemas(root):
        if cost(part, ()) > MAX_WORK:
            raise InvalidSchema(
                f"{where or 'the schema'}: more than {MAX_WORK:,} subschemas look at one value; simplify it"
            )


def _inner_values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _describe_schema_error(before: str, error: Any) -> str:
    location = ".".join(map(str, error.absolute_path))
    return _short_text(f"{before}{location + ': ' if location else ''}{error.message}", quoted=False)


def _short_text(value: Any, *, quoted: bool = True) -> str:
    text = repr(value) if quoted else str(value)
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 1]}…"


FORMATS = FormatChecker(["date", "email", "ipv4", "ipv6", "uuid"])
"""Formats that are cheap to check exactly; for others, a schema can use `pattern`."""
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


@FORMATS.checks("regex", raises=InvalidPattern)  # type: ignore[untyped-decorator]
def _is_regex(value: object) -> bool:
    return not isinstance(value, str) or count_pattern_steps(value) >= 0


def _is_integer(_checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: Any, value: Any) -> bool:
    return _is_integer(checker, value) or (isinstance(value, float) and math.isfinite(value))


def _validate_multiple_of(_validator: Any, step: Any, value: Any, _schema: Any) -> Iterator[Any]:
    """In decimal: in binary, 19.99 is not a multiple of 0.01."""
    if _is_number(None, value) and (Fraction(str(value)) / Fraction(str(step))).denominator != 1:
        yield ValidationError(f"{value!r} is not a multiple of {step}")


def _validate_pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[Any]:
    if isinstance(value, str) and not matches_pattern(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _validate_pattern_properties(validator: Any, patterns: JsonSchema, value: Any, _schema: Any) -> Iterator[Any]:
    for pattern, part in patterns.items() if isinstance(value, dict) else ():
        for key, inner in value.items():
            if matches_pattern(pattern, key):
                yield from validator.descend(inner, part, path=key, schema_path=pattern)


def _validate_additional_properties(validator: Any, wanted: Any, value: Any, schema: JsonSchema) -> Iterator[Any]:
    if isinstance(value, dict):
        named = _matched_keys(value, schema)
        others = {key: inner for key, inner in value.items() if key not in named}
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, wanted, others, {})


def _validate_unevaluated_properties(validator: Any, wanted: Any, value: Any, schema: JsonSchema) -> Iterator[Any]:
    if isinstance(value, dict):
        evaluated = _evaluated_keys(validator, value, schema)
        others = {key: inner for key, inner in value.items() if key not in evaluated}
        yield from Draft202012Validator.VALIDATORS["unevaluatedProperties"](validator, wanted, others, {})


def _matched_keys(value: Mapping[str, Any], schema: JsonSchema) -> set[str]:
    """The keys of a value that `properties` or `patternProperties` match."""
    patterns = schema.get("patternProperties", ())
    return {
        key
        for key in value
        if key in schema.get("properties", ()) or any(matches_pattern(pattern, key) for pattern in patterns)
    }


def _evaluated_keys(validator: Any, value: Mapping[str, Any], schema: Any) -> set[str]:
    """The keys of a value that a schema evaluates, through references and valid combinations too."""
    if not isinstance(schema, dict):
        return set()

    def holds(part: Any, inner: Any) -> bool:
        return bool(validator.evolve(schema=part).is_valid(inner))

    keys = _matched_keys(value, schema)
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        keys |= {key for key in value if keyword in schema and holds(schema[keyword], value[key])}
    if "$ref" in schema:
        resolved = validator._resolver.lookup(schema["$ref"])
        keys |= _evaluated_keys(
            validator.evolve(schema=resolved.contents, _resolver=resolved.resolver), value, resolved.contents
        )
    parts = [part for key in ("allOf", "anyOf", "oneOf") for part in schema.get(key, ()) if holds(part, value)]
    parts += [part for key, part in schema.get("dependentSchemas", {}).items() if key in value]
    if "if" in schema:
        parts += [schema["if"], schema.get("then")] if holds(schema["if"], value) else [schema.get("else")]
    return keys.union(*(_evaluated_keys(validator, value, part) for part in parts))


_Validator = extend(
    Draft202012Validator,
    validators={
        "multipleOf": _validate_multiple_of,
        "pattern": _validate_pattern,
        "patternProperties": _validate_pattern_properties,
        "additionalProperties": _validate_additional_properties,
        "unevaluatedProperties": _validate_unevaluated_properties,
    },
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer).redefine("number", _is_number),
)


def parse_strict_json(text: str) -> Any:
    """The value of `text`, fractions as Decimal. Raises ValueError if it is not JSON, RecursionError if it is too deep."""
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)


def is_same_json(left: str, right: str) -> bool:
    """Whether two texts are the same JSON value: the order of keys is ignored, 30 equals 30.0, true differs from 1. A text
    with a duplicate key, NaN or Infinity is not JSON.
    """
    try:
        return bool(_tag_booleans(parse_strict_json(left)) == _tag_booleans(parse_strict_json(right)))
    except (ValueError, RecursionError):
        return False


def _tag_booleans(value: Any) -> Any:
    """`value` such that truth values, which Python takes for numbers, equal only themselves."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return {key: _tag_booleans(inner) for key, inner in value.items()}
    return [_tag_booleans(inner) for inner in value] if isinstance(value, list) else value


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        raise ValueError("a key comes twice")
    return whole
