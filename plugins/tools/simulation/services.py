"""Simulated services: kinds of records with fields, read from `data/services.toml`, and the tools built from them.

Knows no state of a service, no conversation and no teacher.
"""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from plugins.tools.toolbox.tool_spec import ToolSpec, closed_object

DATA = Path(__file__).parents[1] / "data"
FIELD_UNITS = {"eur": "EUR", "kg": "kg", "cm": "cm", "gb": "GB", "kmh": "km/h", "percent": "%"}
"""Last parts of a field's name, with what follows its number in words."""
VERBS: Mapping[str, Sequence[str]] = {
    "search": ("search", "find", "list"),
    "get": ("get", "read", "fetch"),
    "count": ("count", "tally"),
    "create": ("create", "add", "register"),
    "update": ("update", "change", "modify"),
    "archive": ("archive", "shelve"),
    "note": ("add_note_to", "annotate"),
}
"""Words for an operation in names of tools; a service has one of each."""
STYLES = ("snake", "camel", "suffix")
"""Of names: `create_booking`, `createBooking`, `booking_create`."""
TIME_PATTERN = r"^([01]\d|2[0-3]):[0-5]\d$"
HINTS = {
    "date": ", as YYYY-MM-DD",
    "past": ", as YYYY-MM-DD",
    "time": ", as 15:30",
    "branch": ", as the code of the branch",
}


class EntityField(NamedTuple):
    """A field of a record."""

    path: tuple[str, ...]
    """Its name, in an object that has a name if there are two."""
    kind: str
    values: tuple[str, ...]
    """What its kind takes: bounds, or choices."""
    optional: bool
    computed: bool
    """Whether the service alone sets it."""

    @property
    def unit(self) -> str:
        return FIELD_UNITS.get(self.path[-1].rpartition("_")[2], "")

    @property
    def words(self) -> str:
        """Its name as people say it, without its unit."""
        name = self.path[-1].rpartition("_")[0] if self.unit else self.path[-1]
        return " ".join([*self.path[:-1], name]).replace("_", " ")

    @property
    def numeric(self) -> bool:
        return self.kind in ("int", "money")

    def schema(self) -> dict[str, Any]:
        """The JSON schema of its values; the service's own rules, such as a largest number, are not in it."""
        unit = f" in {self.unit}" if self.unit else ""
        about = {"description": f"{self.words}{unit}{HINTS.get(self.kind, '')}"}
        choices = {"type": "string", "enum": list(self.values)}
        kinds: dict[str, dict[str, Any]] = {
            "int": {"type": "integer", "minimum": 1},
            "money": {"type": "number", "exclusiveMinimum": 0},
            "date": {"type": "string", "format": "date"},
            "past": {"type": "string", "format": "date"},
            "time": {"type": "string", "pattern": TIME_PATTERN},
            "flag": {"type": "boolean"},
            "one": choices,
            "many": {"type": "array", "items": choices, "minItems": 1, "uniqueItems": True},
        }
        return {**kinds.get(self.kind, {"type": "string", "minLength": 1, "maxLength": 80}), **about}


def parse_field(text: str) -> EntityField:
    """A field as `data/services.toml` writes it."""
    words = text.split()
    marks = {word for word in words if word in ("?", "!")}
    name, kind, *rest = [word for word in words if word not in marks]
    values = rest if kind in ("int", "money") else [value for value in " ".join(rest).split("/") if value]
    return EntityField(tuple(name.split(".")), kind, tuple(values), "?" in marks, "!" in marks)


class StatusChange(NamedTuple):
    verb: str
    before: str
    after: str


class Entity(NamedTuple):
    """A kind of records of a service."""

    name: str
    plural: str
    label: EntityField
    """What people call a record by; no two records of a service have the same."""
    fields: tuple[EntityField, ...]
    """The others."""
    first_status: str
    changes: tuple[StatusChange, ...]
    remove: str

    @property
    def given(self) -> tuple[EntityField, ...]:
        """The fields that a new record is given."""
        return (self.label, *(field for field in self.fields if not field.computed))

    @property
    def statuses(self) -> list[str]:
        return list(dict.fromkeys([self.first_status, *(change.after for change in self.changes)]))

    @property
    def date_field(self) -> EntityField | None:
        return next((field for field in self.fields if field.kind == "date" and len(field.path) == 1), None)


class Domain(NamedTuple):
    name: str
    does: str
    outside: tuple[str, ...]
    """What people ask for that no tool does."""
    entities: tuple[Entity, ...]


def _parse_entity(data: Mapping[str, Any]) -> Entity:
    first, *steps = data["flow"].split(" > ")
    changes, status = [], first
    for step in steps:
        verb, after = step.split(": ")
        changes.append(StatusChange(verb, status, after))
        status = after
    return Entity(
        data["name"], data.get("plural", f"{data['name']}s"), parse_field(data["label"]),
        tuple(map(parse_field, data["fields"])), first, tuple(changes), data["remove"],
    )  # fmt: skip


@cache
def read_services() -> Mapping[str, Any]:
    """The data of all services: `domains` by name, and pools of values by kind of field."""
    data = tomllib.loads((DATA / "services.toml").read_text(encoding="utf-8"))
    domains = [
        Domain(one["name"], one["does"], tuple(one["outside"]), tuple(map(_parse_entity, one["entities"])))
        for one in data["domains"]
    ]
    return {
        "domains": {domain.name: domain for domain in domains},
        **{kind: data[pool] for kind, pool in (("person", "people"), ("town", "towns"), ("street", "streets"))},
        "branch": data["branches"],
    }


class ServiceTool(NamedTuple):
    """A tool of a service."""

    spec: ToolSpec
    entity: Entity
    operation: str
    """A key of `VERBS`, `remove`, or `move` for a change of status."""
    phrase: str
    """What it does, in a few words that no other tool of the service has."""
    change: StatusChange | None = None


def build_tools(domain: Domain, seed: int) -> dict[str, ServiceTool]:
    """All tools of a service by name. The seed draws the verbs and the style of the names."""
    rng = Random(f"{seed}/names")
    verbs, style = {operation: rng.choice(words) for operation, words in VERBS.items()}, rng.choice(STYLES)
    tools = {}
    for entity in domain.entities:
        for operation, change, phrase, parameters in _list_operations(entity):
            verb = change.verb if change else verbs.get(operation, entity.remove)
            thing = entity.plural if operation in ("search", "count") else entity.name
            name = _join_name(verb, thing, style)
            text = f"{phrase[0].upper()}{phrase[1:]}{_EXTRA.get(operation, '')}."
            if name in tools:
                raise ValueError(f"service {domain.name}: two tools have the name {name}")
            spec = ToolSpec(name=name, description=text, parameters=parameters)
            tools[name] = ServiceTool(spec, entity, operation, phrase, change)
    return tools


_EXTRA = {
    "search": ": the number, name and status of each that fits, archived ones only on request",
    "get": ", with all its details, by its number",
    "count": ", and add up one of their numbers",
    "update": "; only what is given changes",
    "remove": "; it cannot be brought back",
    "archive": ": it is kept, but no longer listed",
    "note": ", a text for later readers",
}


def _list_operations(entity: Entity) -> list[tuple[str, StatusChange | None, str, dict[str, Any]]]:
    """Operation, change of status, phrase and parameters of each tool of a kind of records."""
    name, plural = entity.name, entity.plural
    number = {"id": {"type": "string", "minLength": 1, "maxLength": 20, "description": f"the number of the {name}"}}
    filters: dict[str, Any] = {
        entity.label.path[-1]: {**entity.label.schema(), "description": f"{entity.label.words}, or a part of it"}
    }
    filters["status"] = {"type": "string", "enum": entity.statuses, "description": "only those with this status"}
    filters |= {field.path[-1]: field.schema() for field in entity.fields if field.kind == "one"}
    if entity.date_field:
        day = {"type": "string", "format": "date"}
        span = closed_object(
            {"from": {**day, "description": "first day"}, "to": {**day, "description": "last day"}}, []
        )
        filters["dates"] = {**span, "description": f"only those whose {entity.date_field.words} is in this span"}
    filters["include_archived"] = {"type": "boolean", "default": False, "description": "archived ones too"}
    order = {"sort_by": {"type": "string", "enum": ["number", "name", "status"], "description": "order of the list"}}
    sums = [field.path[-1] for field in entity.fields if field.numeric]
    total = {"total_of": {"type": "string", "enum": sums, "description": "what to add up"}}
    text = {"text": {"type": "string", "minLength": 1, "maxLength": 200, "description": "the note, word for word"}}
    seen_by = {"visible_to": {"type": "string", "enum": ["staff", "everybody"], "description": "who can read it"}}
    changed = [field._replace(optional=True) for field in entity.given if field is not entity.label]
    rows: list[tuple[str, StatusChange | None, str, dict[str, Any]]] = [
        ("search", None, f"search the {plural}", closed_object({**filters, **order}, [])),
        ("get", None, f"look up one {name}", closed_object(number)),
        ("count", None, f"count the {plural}", closed_object({**filters, **total}, [])),
        ("create", None, f"add a new {name}", build_object_schema(entity.given)),
        ("update", None, f"change details of the {name}", build_object_schema(changed, number)),
        ("archive", None, f"archive the {name}", closed_object(number)),
        ("note", None, f"add a note to the {name}", closed_object({**number, **text, **seen_by}, ["id", "text"])),
        ("remove", None, f"{entity.remove} the {name} for good", closed_object(number)),
    ]
    return rows + [
        ("move", change, f"{change.verb} the {name} ({change.before} to {change.after})", closed_object(number))
        for change in entity.changes
    ]


def build_object_schema(fields: Sequence[EntityField], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON schema of an object of fields, which nests those that share a first name. `more` are required too."""
    properties: dict[str, Any] = dict(more or {})
    required = list(properties)
    for field in fields:
        outer = field.path[0]
        if len(field.path) == 1:
            properties[outer] = field.schema()
        else:
            inner = properties.setdefault(outer, {**closed_object({}, []), "description": outer.replace("_", " ")})
            inner["properties"][field.path[1]] = field.schema()
            inner["required"] += [] if field.optional else [field.path[1]]
        if not field.optional and outer not in required:
            required.append(outer)
    return closed_object(properties, required)


def _join_name(verb: str, thing: str, style: str) -> str:
    words = f"{thing} {verb}" if style == "suffix" else f"{verb} {thing}"
    parts = words.replace("-", "_").replace(" ", "_").split("_")
    return "_".join(parts) if style != "camel" else parts[0] + "".join(part.capitalize() for part in parts[1:])
