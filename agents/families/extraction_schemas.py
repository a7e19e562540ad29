"""What a JSON schema wants of an extraction: its fields, which of them a text tells, and the narrower schema of a reply.

Knows no teacher and no text.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agents.checks.json_schema import InvalidSchema, build_validator, resolve_reference
from agents.checks.text.value_in_text import validate_evidence
from teachers.grammar_bounds import iter_subschemas

MAX_NESTING = 4
"""Nesting depth to which a seed requires fields individually; a recursive schema has no deepest level."""


class ListPlan(NamedTuple):
    """Which optional fields of a list's items a text tells."""

    path: str
    each: Sequence[str]
    """Told of each item."""
    some: Sequence[str]
    """Told of at least one item, and not of at least one other."""
    length: int = 0
    """Items of the list; 0 leaves it to the writer."""


class WantedField(NamedTuple):
    """A field of a schema outside of lists, by its dotted path."""

    path: str
    optional: bool


def check_extraction_schema(schema: Any) -> None:
    """Check that a schema is suitable for extraction. Raises InvalidSchema with the location."""
    if not isinstance(schema, dict):
        raise InvalidSchema(f"a JSON schema is an object, not {str(schema)[:80]!r}")
    build_validator(schema)
    validate_evidence(schema)
    if schema.get("type") != "object" or not schema.get("properties"):
        raise InvalidSchema('the schema must have "type": "object" and at least one of "properties"')
    dotted = [name for _, part in iter_subschemas(schema) for name in part.get("properties", {}) if "." in name]
    if dotted:
        raise InvalidSchema(f"the property {dotted[0]!r} has a dot, which tells nested fields apart; name it without")


def list_wanted_fields(schema: Mapping[str, Any]) -> list[WantedField]:
    """The fields of a schema, nested fields after their parent."""
    return list(_iter_wanted_fields(schema, schema, "", MAX_NESTING))


def _iter_wanted_fields(
    schema: Mapping[str, Any], root: Mapping[str, Any], path: str, levels: int
) -> Iterator[WantedField]:
    for name, part in schema.get("properties", {}).items():
        inner, nullable = _resolve_nullable(part, root)
        location = f"{path}.{name}".lstrip(".")
        yield WantedField(location, nullable or name not in schema.get("required", ()))
        if levels > 1 and inner.get("type") == "object":
            yield from _iter_wanted_fields(inner, root, location, levels - 1)


def list_item_fields(schema: Mapping[str, Any], path: str) -> list[WantedField]:
    """The fields of the items of the list at a dotted path; none if it is no list of objects of one kind."""
    inner = part_at(schema, path)
    item, _ = _resolve_nullable(inner.get("items"), schema) if inner.get("type") == "array" else ({}, False)
    required = item.get("required", ())
    return [
        WantedField(name, name not in required or _resolve_nullable(below, schema)[1])
        for name, below in item.get("properties", {}).items()
    ]


def part_at(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The schema of the field at a dotted path, with references resolved."""
    part, _ = _resolve_nullable(schema, schema)
    for name in path.split("."):
        part, _ = _resolve_nullable(part.get("properties", {}).get(name), schema)
    return part


def _resolve_nullable(schema: Any, root: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema of a value that is not null, with references resolved, and whether null is allowed."""
    part = dict(schema) if isinstance(schema, dict) else {}
    nullable = False
    while "$ref" in part:
        reference = part.pop("$ref")
        part = {**resolve_reference(reference, root), **part}
    for key in ("anyOf", "oneOf"):
        branches = [branch for branch in part.get(key, ()) if branch != {"type": "null"}]
        nullable |= len(branches) < len(part.get(key, ()))
        if len(branches) == 1 and nullable:
            rest = {name: value for name, value in part.items() if name not in (key, "default")}
            return {**_resolve_nullable(branches[0], root)[0], **rest}, True
    types = part.get("type")
    if isinstance(types, list) and "null" in types:
        left = [kind for kind in types if kind != "null"]
        part["type"], nullable = left[0] if len(left) == 1 else left, True
    if "enum" in part:
        nullable |= None in part["enum"] and "type" not in part
        part["enum"] = [value for value in part["enum"] if value is not None]
    return part, nullable


def order_values(values: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """`values` in the schema's order: null for absent nullable fields, no null for other fields."""
    inner, _ = _resolve_nullable(schema, root)
    if isinstance(values, list):
        return [order_values(value, inner.get("items"), root) for value in values]
    if not isinstance(values, dict):
        return values
    ordered: dict[str, Any] = {}
    for name, part in inner.get("properties", {}).items():
        _, nullable = _resolve_nullable(part, root)
        value = order_values(values.get(name), part, root)
        if value is not None or nullable or (name in values and name in inner.get("required", ())):
            ordered[name] = value
    return {**ordered, **{name: value for name, value in values.items() if name not in inner.get("properties", {})}}


def narrow_schema(
    schema: Any, root: Mapping[str, Any], left_out: Sequence[str], lists: Sequence[ListPlan] = (), path: str = ""
) -> dict[str, Any]:
    """`schema` with all fields required, except `left_out`, which are null or absent; items of `lists` follow their plan."""
    plans = {plan.path: plan for plan in lists}
    inner, _ = _resolve_nullable(schema, root)
    required: dict[str, Any] = {}
    for name, part in inner.get("properties", {}).items():
        below, nullable = _resolve_nullable(part, root)
        location = f"{path}.{name}".lstrip(".")
        if location in left_out:
            required |= {name: {"type": "null"}} if nullable else {}
        elif below.get("type") == "object" and location.count(".") < MAX_NESTING:
            required[name] = narrow_schema(part, root, left_out, lists, location)
        elif below.get("type") == "array":
            required[name] = _narrow_list(below, root, plans.get(location, ListPlan(location, (), ())))
        else:
            required[name] = below
    return {**inner, "properties": required, "required": list(required)} if required else inner


def _narrow_list(schema: dict[str, Any], root: Mapping[str, Any], plan: ListPlan) -> dict[str, Any]:
    narrow = {**schema, "minItems": max(2 if plan.some else 1, plan.length or schema.get("minItems", 1))}
    narrow |= {"maxItems": plan.length} if plan.length else {}
    if plan.each:
        item, _ = _resolve_nullable(schema["items"], root)
        told = {name: _resolve_nullable(item["properties"][name], root)[0] for name in plan.each}
        required = [name for name in item["properties"] if name in told or name in item.get("required", ())]
        narrow["items"] = {**item, "properties": {**item["properties"], **told}, "required": required}
    return narrow


def value_at(path: str, values: Any) -> Any:
    """The value at a dotted path; None if it is absent."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def omit_computed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a seed without what code computes."""
    names = {field[0] for field in data.get("computed", ())}
    schema: dict[str, Any] = data["schema"]
    if not names:
        return schema
    properties = {name: part for name, part in schema["properties"].items() if name not in names}
    return {**schema, "properties": properties, "required": [n for n in schema["required"] if n not in names]}


def empties_parent(path: str, left_out: Sequence[str], known: Sequence[str]) -> bool:
    """Whether an object that is told would have no field, and `path` is its first."""
    parent = path.rpartition(".")[0]
    siblings = [other for other in known if parent and other.rpartition(".")[0] == parent]
    return siblings[:1] == [path] and set(siblings) <= set(left_out)


def is_within(path: str, left_out: Sequence[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in left_out)
