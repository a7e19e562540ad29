"""JSON schemas as vendors accept them for structured replies: unsupported keywords are described in words.

The reply is compared with the whole schema by its sender. Knows no request.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

DESCRIBED = {"description", "title"}
ANNOTATIONS = {"default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator", "$comment", "$schema"}
"""Keywords that no reply can violate."""
OBJECT_KEYWORDS = {"properties", "required", "additionalProperties"}
MAX_ENUMERATED = 20
"""Values of a range of integers that becomes a list."""
MAX_OPTIONAL, MAX_UNIONS = 24, 16
"""Of all of a schema's properties at Anthropic: optional ones, and those with several types."""


class SchemaDialect(NamedTuple):
    keywords: frozenset[str]
    """Supported ones, in addition to those for objects, arrays and descriptions."""
    formats: frozenset[str] | None
    """Supported values of `format`; None for all."""
    closed_objects: bool
    """Whether each object must name all of its properties."""


CLAUDE_SCHEMAS = SchemaDialect(
    frozenset({"type", "enum", "const", "anyOf", "allOf", "format"}),
    frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}),
    closed_objects=True,
)
"""https://platform.claude.com/docs/en/build-with-claude/structured-outputs, "JSON Schema limitations"."""
GEMINI_SCHEMAS = SchemaDialect(
    frozenset({"type", "enum", "anyOf", "format", "minItems", "maxItems", "minimum", "maximum", "prefixItems"}),
    None,
    closed_objects=False,
)
"""https://ai.google.dev/api/generate-content, "responseJsonSchema"."""


class UnsupportedSchema(ValueError):
    """A schema that the vendor has no equivalent for."""


def fit_schema(schema: Mapping[str, Any], dialect: SchemaDialect) -> dict[str, Any] | None:
    """`schema` with the keywords of `dialect` only; None if the vendor cannot express it."""
    try:
        fitted = _fit_part(schema, schema, dialect, ())
        definitions = schema.get("$defs", {})
        if definitions:
            fitted = {**fitted, "$defs": {n: _fit_part(part, schema, dialect, (n,)) for n, part in definitions.items()}}
    except (UnsupportedSchema, AttributeError, TypeError):  # not a valid schema: the server says so
        return None
    if dialect.closed_objects and (_count_optional(fitted) > MAX_OPTIONAL or _count_unions(fitted) > MAX_UNIONS):
        return None
    return fitted


def _fit_part(
    part: Mapping[str, Any], root: Mapping[str, Any], dialect: SchemaDialect, inside: tuple[str, ...]
) -> dict[str, Any]:
    """`inside` are the definitions that lead here; one of them again would be a recursion, which no vendor expands."""
    if "$ref" in part:
        name = str(part["$ref"]).removeprefix("#/$defs/")
        if name in inside or name not in root.get("$defs", {}):
            raise UnsupportedSchema(name)
        _fit_part(root["$defs"][name], root, dialect, (*inside, name))
        return {"$ref": part["$ref"]}
    fitted: dict[str, Any] = {key: part[key] for key in part if key in DESCRIBED}
    rest = {key: value for key, value in part.items() if key not in DESCRIBED | ANNOTATIONS | {"$defs"}}
    if "const" in rest and "const" not in dialect.keywords:
        rest["enum"] = [rest.pop("const")]
    if rest.get("type") == "integer" and "minimum" not in dialect.keywords:
        _enumerate_range(rest)
    fitted |= _fit_subschemas(rest, lambda inner: _fit_part(inner, root, dialect, inside), dialect)
    for key in list(rest):
        if _is_supported(key, rest[key], dialect):
            fitted[key] = rest.pop(key)
    if dialect.closed_objects and not fitted.keys() & {"type", "enum", "const", "anyOf", "allOf"}:
        raise UnsupportedSchema("any value")
    if rest:
        words = ", ".join(f"{key}: {value}" for key, value in rest.items())
        fitted["description"] = f"{fitted.get('description', '')} ({words})".strip()
    return fitted


def _enumerate_range(rest: dict[str, Any]) -> None:
    """Replace the limits of an integer by all of its values, if they are few: a score from 1 to 5."""
    low, high = rest.get("minimum"), rest.get("maximum")
    if isinstance(low, int) and isinstance(high, int) and 0 <= high - low < MAX_ENUMERATED and "enum" not in rest:
        rest["enum"] = list(range(rest.pop("minimum"), rest.pop("maximum") + 1))


def _fit_subschemas(
    rest: dict[str, Any], fit: Callable[[Mapping[str, Any]], dict[str, Any]], dialect: SchemaDialect
) -> dict[str, Any]:
    """The keywords that hold schemas, which are taken out of `rest`."""
    fitted: dict[str, Any] = {}
    for union in ("anyOf", "oneOf"):
        if union in rest:
            fitted["anyOf"] = [fit(choice) for choice in rest.pop(union)]
    for key in {"allOf", "prefixItems"} & rest.keys() & dialect.keywords:
        fitted[key] = [fit(inner) for inner in rest.pop(key)]
    if rest.get("type") == "object" or OBJECT_KEYWORDS & rest.keys():
        fitted |= _fit_object({key: rest.pop(key) for key in OBJECT_KEYWORDS & rest.keys()}, fit, dialect)
    if "items" in rest:
        fitted["items"] = fit(rest.pop("items"))
    return fitted


def _fit_object(
    keywords: dict[str, Any], fit: Callable[[Mapping[str, Any]], dict[str, Any]], dialect: SchemaDialect
) -> dict[str, Any]:
    """Raises UnsupportedSchema for an object with free property names, where it must be closed."""
    properties, others = keywords.get("properties", {}), keywords.get("additionalProperties")
    fitted: dict[str, Any] = (
        {"properties": {name: fit(value) for name, value in properties.items()}} if properties else {}
    )
    if "required" in keywords:
        fitted["required"] = list(keywords["required"])
    if dialect.closed_objects:
        if others not in (None, False) or (others is None and not properties):
            raise UnsupportedSchema("an object with any properties")
        return {"properties": {}, **fitted, "additionalProperties": False}
    if isinstance(others, dict):
        fitted["additionalProperties"] = fit(others)
    elif others is not None:
        fitted["additionalProperties"] = others
    return fitted


def _is_supported(key: str, value: Any, dialect: SchemaDialect) -> bool:
    if key == "minItems" and dialect.closed_objects:
        return value in (0, 1)
    if key == "format":
        return dialect.formats is None or value in dialect.formats
    if key == "enum":
        return all(isinstance(choice, str | int | float | None) for choice in value)
    return key in dialect.keywords


def _count_optional(part: Any) -> int:
    if isinstance(part, list):
        return sum(map(_count_optional, part))
    if not isinstance(part, dict):
        return 0
    named = part.get("properties")
    optional = len(named.keys() - set(part.get("required", ()))) if isinstance(named, dict) else 0
    return optional + sum(map(_count_optional, part.values()))


def _count_unions(part: Any) -> int:
    if isinstance(part, list):
        return sum(map(_count_unions, part))
    if not isinstance(part, dict):
        return 0
    return ("anyOf" in part or isinstance(part.get("type"), list)) + sum(map(_count_unions, part.values()))
