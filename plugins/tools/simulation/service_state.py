"""The one engine of the simulated services: a seeded state, and calls that read and change it. Knows no conversation.

A state is a function of its service's seed and of the calls made. So a checker repeats a conversation's calls, and a resumed run
reaches the same state.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from random import Random
from typing import Any

from core.sample import ToolCall
from plugins.tools.simulation.services import (
    Entity,
    EntityField,
    ServiceTool,
    build_tools,
    read_services,
)
from plugins.tools.toolbox.tool_spec import ToolResult, build_failure, build_result, find_call_fault

FIRST_DAY = date(2026, 1, 5)
DAYS_AHEAD = 60
RECORDS = 6
"""Of each kind at the start, fewer if there are fewer names."""
OPTIONAL_SHARE = 0.5
MAX_LISTED = 12

Record = dict[str, Any]
Arguments = Mapping[str, Any]


class RefusedCall(Exception):
    """A call that the service refuses; the text says why."""


class SimulatedService:
    """One service with its records."""

    def __init__(self, domain: str, seed: int) -> None:
        self.domain = read_services()["domains"][domain]
        self.seed = seed
        rng = Random(f"{seed}/state")
        self.today = FIRST_DAY + timedelta(days=rng.randrange(700))
        self.tools = build_tools(self.domain, seed)
        self.branches = {f"{name[0]}{name[-1].upper()}{rng.randint(2, 9)}": name for name in read_services()["branch"]}
        self.records: dict[str, dict[str, Record]] = {}
        for entity in self.domain.entities:
            self.records[entity.name] = {}
            labels = self.free_labels(entity)
            for label in rng.sample(labels, min(RECORDS, len(labels) - 2)):
                values = {entity.label.path: label}
                for field in entity.fields:
                    if field.computed or not field.optional or rng.random() < OPTIONAL_SHARE:
                        values[field.path] = self.draw_value(field, rng)
                record = self._add(entity, nest_values(values), rng.randint(2, 17))
                reached = rng.randrange(len(entity.changes) + 1)
                record["status"] = entity.changes[reached - 1].after if reached else entity.first_status

    def free_labels(self, entity: Entity) -> list[str]:
        """The names that no record of this kind has."""
        pool = entity.label.values or read_services()["person"]
        taken = {record[entity.label.path[0]] for record in self.records[entity.name].values()}
        return [label for label in pool if label not in taken]

    def draw_value(self, field: EntityField, rng: Random, most: float | None = None) -> Any:
        """A value that the service accepts; a number at most `most`."""
        match field.kind:
            case "int" | "money":
                least = int(field.values[0])
                bound = max(least, min(int(field.values[1]), int(most) if most is not None else int(field.values[1])))
                drawn = rng.randint(least, bound)
                return drawn if field.kind == "int" or drawn == bound else drawn + rng.choice((0, 0, 0.5, 0.9))
            case "date":
                return (self.today + timedelta(days=rng.randint(1, DAYS_AHEAD))).isoformat()
            case "past":
                return (self.today - timedelta(days=rng.randint(1, DAYS_AHEAD))).isoformat()
            case "time":
                return f"{rng.randint(8, 19):02}:{rng.choice((0, 15, 30, 45)):02}"
            case "flag":
                return True
            case "many":
                return rng.sample(field.values, rng.randint(1, min(2, len(field.values))))
            case "phone":
                return f"0{rng.randint(20, 99)}-{rng.randint(100000, 999999)}"
            case "branch":
                return rng.choice(sorted(self.branches))
            case _:
                return rng.choice(field.values or read_services()[field.kind])

    def execute(self, call: ToolCall, offered: Mapping[str, Any]) -> ToolResult:
        """The result of a call of one of the `offered` tools (name and schema); a refused call changes nothing."""
        if fault := find_call_fault(call, offered, strict=True):
            return build_failure(fault, undone=True)
        tool = self.tools[call.name]
        try:
            result = _OPERATIONS[tool.operation](self, tool, call.arguments)
        except RefusedCall as refusal:
            return build_failure(str(refusal))
        return build_result(json.dumps(result, ensure_ascii=False))

    def snapshot(self) -> dict[str, Any]:
        """The state without what makes no difference: absent and false values, capitals, the order of lists."""
        return {
            name: {number: _normalize(record) for number, record in records.items()}
            for name, records in self.records.items()
        }

    def get_record(self, entity: Entity, number: str) -> Record:
        """Raises RefusedCall."""
        if number not in self.records[entity.name]:
            raise RefusedCall(f"there is no {entity.name} {number}")
        return self.records[entity.name][number]

    def _add(self, entity: Entity, values: Record, step: int = 1) -> Record:
        records = self.records[entity.name]
        last = max((int(number.rpartition("-")[2]) for number in records), default=100 + step * 31)
        number = f"{entity.name.replace('-', '')[:2].upper()}-{last + step}"
        records[number] = {"id": number, **values, "status": entity.first_status}
        return records[number]

    def _check_values(self, entity: Entity, arguments: Arguments) -> None:
        """The service's own rules. Raises RefusedCall."""
        for field in entity.given:
            value = find_value(arguments, field.path)
            if field.kind == "int" and value is not None and value > int(field.values[1]):
                raise RefusedCall(f"{field.words} can be at most {field.values[1]}")
            if field.kind == "branch" and value is not None and value not in self.branches:
                codes = ", ".join(f"{code} ({name})" for code, name in self.branches.items())
                raise RefusedCall(f"there is no branch with the code {str(value)[:40]!r}; the codes are {codes}")

    def _filter(self, entity: Entity, arguments: Arguments) -> Iterator[Record]:
        label, day = entity.label.path[0], entity.date_field
        span = arguments.get("dates", {})
        choices = [field for field in entity.fields if field.kind == "one"]
        for record in self.records[entity.name].values():
            on = record.get(day.path[0], "") if day else ""
            fits = (
                arguments.get(label, "").casefold() in record[label].casefold()
                and arguments.get("status", record["status"]) == record["status"]
                and (arguments.get("include_archived") or not record.get("archived"))
                and span.get("from", on) <= on <= span.get("to", on)
                and all(arguments.get(field.path[-1]) in (None, find_value(record, field.path)) for field in choices)
            )
            if fits:
                yield record

    def _search(self, tool: ServiceTool, arguments: Arguments) -> Any:
        entity, day = tool.entity, tool.entity.date_field
        shown = ["id", entity.label.path[0], "status", *([day.path[0]] if day else [])]
        found = [{key: record[key] for key in shown if key in record} for record in self._filter(entity, arguments)]
        key = {"name": entity.label.path[0], "status": "status"}.get(arguments.get("sort_by", ""), "id")
        return {"found": len(found), "list": sorted(found, key=lambda one: str(one[key]))[:MAX_LISTED]}

    def _get(self, tool: ServiceTool, arguments: Arguments) -> Any:
        return self.get_record(tool.entity, arguments["id"])

    def _count(self, tool: ServiceTool, arguments: Arguments) -> Any:
        found = list(self._filter(tool.entity, arguments))
        result: Record = {"count": len(found)}
        if wanted := arguments.get("total_of"):
            field = next(field for field in tool.entity.fields if field.path[-1] == wanted)
            result[f"total_{wanted}"] = round(sum(find_value(record, field.path) or 0 for record in found), 2)
        return result

    def _create(self, tool: ServiceTool, arguments: Arguments) -> Any:
        entity, label = tool.entity, tool.entity.label.path[0]
        self._check_values(entity, arguments)
        if any(arguments[label] == record[label] for record in self.records[entity.name].values()):
            raise RefusedCall(f"there is already a {entity.name} with the {entity.label.words} {arguments[label]}")
        record = self._add(entity, json.loads(json.dumps(arguments)))
        rng = Random(f"{self.seed}/{record['id']}")
        computed = nest_values({field.path: self.draw_value(field, rng) for field in entity.fields if field.computed})
        record |= computed
        return {"id": record["id"], label: record[label], "status": record["status"], **computed}

    def _update(self, tool: ServiceTool, arguments: Arguments) -> Any:
        record = self.get_record(tool.entity, arguments["id"])
        self._check_values(tool.entity, arguments)
        changed = {key: value for key, value in arguments.items() if key != "id"}
        if not changed:
            raise RefusedCall("nothing is given that could change")
        for key, value in changed.items():
            record[key] = {**record.get(key, {}), **value} if isinstance(value, dict) else value
        return {**_name_record(tool, record), "changed": changed}

    def _remove(self, tool: ServiceTool, arguments: Arguments) -> Any:
        record = self.get_record(tool.entity, arguments["id"])
        del self.records[tool.entity.name][record["id"]]
        return {**_name_record(tool, record), "removed": True}

    def _archive(self, tool: ServiceTool, arguments: Arguments) -> Any:
        record = self.get_record(tool.entity, arguments["id"])
        if record.get("archived"):
            raise RefusedCall(f"{record['id']} is archived already")
        record["archived"] = True
        return {**_name_record(tool, record), "archived": True}

    def _note(self, tool: ServiceTool, arguments: Arguments) -> Any:
        record = self.get_record(tool.entity, arguments["id"])
        note = {"text": arguments["text"], "visible_to": arguments.get("visible_to", "staff")}
        record.setdefault("notes", []).append(note)
        return {**_name_record(tool, record), "note": arguments["text"]}

    def _move(self, tool: ServiceTool, arguments: Arguments) -> Any:
        assert tool.change
        record, change = self.get_record(tool.entity, arguments["id"]), tool.change
        if record["status"] != change.before:
            raise RefusedCall(
                f"{record['id']} is {record['status']}, and only one that is {change.before} can be changed so"
            )
        record["status"] = change.after
        return {**_name_record(tool, record), "status": change.after}


_OPERATIONS: Mapping[str, Callable[[SimulatedService, ServiceTool, Arguments], Any]] = {
    "search": SimulatedService._search, "get": SimulatedService._get, "count": SimulatedService._count,
    "create": SimulatedService._create, "update": SimulatedService._update, "remove": SimulatedService._remove,
    "archive": SimulatedService._archive, "note": SimulatedService._note, "move": SimulatedService._move,
}  # fmt: skip


def _name_record(tool: ServiceTool, record: Record) -> Record:
    return {"id": record["id"], tool.entity.label.path[0]: record[tool.entity.label.path[0]]}


def find_value(values: Arguments, path: tuple[str, ...]) -> Any:
    """The value under a path, or None."""
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def nest_values(values: Mapping[tuple[str, ...], Any]) -> Record:
    """Values by path as an object."""
    nested: Record = {}
    for path, value in values.items():
        inner = nested
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return nested


def _normalize(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: kept for key, inner in value.items() if (kept := _normalize(inner)) not in (None, False, [], {})}
    if isinstance(value, list):
        return sorted((_normalize(inner) for inner in value), key=str)
    return " ".join(value.casefold().strip(" .").split()) if isinstance(value, str) else value
