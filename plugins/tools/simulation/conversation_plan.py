"""Plans of conversations with a simulated service: what the user wants in each turn, and the calls that do it.

A plan is executed while it is drawn, so its calls succeed or fail as they are said to. The writer of the user's requests reads
`notes`; the assistant sees nothing of a plan; the checks compare states and replies with it. Knows no teacher.
"""

import json
from collections.abc import Callable, Sequence
from datetime import date
from random import Random
from typing import Any, Literal, NamedTuple

from core.sample import FrozenModel, ToolCall
from plugins.tools.simulation.service_state import Record, SimulatedService, find_value, nest_values
from plugins.tools.simulation.services import Entity, EntityField, ServiceTool
from plugins.tools.toolbox.tool_spec import ToolResult

TurnKind = Literal["call", "both", "ask", "error", "recover", "confirm", "refuse", "limit", "outside"]
SHARES = {
    "one": 0.4,
    "both": 0.1,
    "ask": 0.1,
    "lost": 0.07,
    "rule": 0.06,
    "confirm": 0.13,
    "limit": 0.06,
    "outside": 0.08,
}
"""Of the episodes of a conversation; an episode that a conversation cannot have becomes `one`."""
CONFIRM_SHARE, LIMIT_SHARE, REFUSE_SHARE = 0.7, 0.4, 0.4
"""Of conversations with the rule, and of confirmations that the user refuses."""
MAX_FACTS = 4
"""Names that a search may find."""
MAX_DRAWS = 60
MIN_NEAR_MISSES = 3
"""Offered tools that no call of the plan needs."""


class PlannedTurn(FrozenModel):
    """The plan of one turn."""

    kind: TurnKind
    notes: str
    """What the user wants, for the writer of the request."""
    calls: tuple[ToolCall, ...] = ()
    """What changes the state, and the reads that its facts come from, in an order that works."""
    tools: tuple[str, ...] = ()
    """That must be offered."""
    facts: tuple[tuple[str, Any], ...] = ()
    """What the reply must state: words for a value, and the value."""


class ConversationPlan(NamedTuple):
    turns: list[PlannedTurn]
    rules: str
    """Of the service, for the system message."""
    offered: list[str]


class Limit(NamedTuple):
    """A rule of the service: more needs a colleague."""

    entity: Entity
    field: EntityField
    most: int


class _Impossible(Exception):
    """An episode that the state does not allow."""


class _Goal(NamedTuple):
    """One thing that a user wants."""

    tool: ServiceTool
    notes: list[str]
    calls: list[ToolCall]
    facts: list[tuple[str, Any]]


def draw_plan(service: SimulatedService, rng: Random, turns: int, offered: int) -> ConversationPlan:
    """A plan of `turns` turns, executed on `service`, and about `offered` tools, near misses among them."""
    planner = _Planner(service, rng)
    planned: list[PlannedTurn] = []
    while len(planned) < turns:
        planned += planner.draw_episode(turns - len(planned))
    needed = list(
        dict.fromkeys(name for turn in planned for name in (*turn.tools, *(call.name for call in turn.calls)))
    )
    return ConversationPlan(planned, planner.rules, _draw_offered(service, rng, needed, offered))


def _draw_offered(service: SimulatedService, rng: Random, needed: Sequence[str], count: int) -> list[str]:
    """The needed tools, then near misses: of the same records, or doing the same with others."""
    wanted = [service.tools[name] for name in needed]
    entities = {tool.entity.name for tool in wanted}
    operations = {tool.operation for tool in wanted}
    others = [name for name in rng.sample(list(service.tools), len(service.tools)) if name not in needed]
    same = [name for name in others if service.tools[name].entity.name in entities]
    alike = [name for name in others if service.tools[name].operation in operations and name not in same]
    rest = [name for name in others if name not in same and name not in alike]
    misses = max(MIN_NEAR_MISSES, count - len(needed))
    half = (misses + 1) // 2
    chosen = [*needed, *[*same[:half], *alike, *same[half:], *rest][:misses]]
    return rng.sample(chosen, len(chosen))


class _Planner:
    def __init__(self, service: SimulatedService, rng: Random) -> None:
        self._service, self._rng = service, rng
        self._offered = {name: tool.spec.parameters for name, tool in service.tools.items()}
        self._touched: set[str] = set()
        self._outside = rng.sample(service.domain.outside, len(service.domain.outside))
        self._confirms = rng.random() < CONFIRM_SHARE
        self._limit = self._draw_limit() if rng.random() < LIMIT_SHARE else None
        self.rules = self._describe_rules()

    def _draw_limit(self) -> Limit:
        pairs = [
            (entity, field)
            for entity in self._service.domain.entities
            for field in entity.given
            if field.numeric and not field.optional and int(field.values[1]) >= 3 * int(field.values[0])
        ]
        entity, field = self._rng.choice(pairs)
        return Limit(entity, field, int(field.values[1]) // 2)

    def _describe_rules(self) -> str:
        rules = []
        if self._confirms:
            verbs = ", ".join(sorted({entity.remove for entity in self._service.domain.entities}))
            rules.append(
                f"Before you remove a record for good ({verbs}), say which one it is and ask whether to go on; do it only "
                "after a yes."
            )
        if self._limit:
            entity, field, most = self._limit
            amount = f"{most} {field.unit}".strip()
            rules.append(
                f"Any {entity.name} whose {field.words} is over {amount} is neither added nor changed: say that a colleague "
                "has to approve it."
            )
        return " ".join(rules)

    def draw_episode(self, room: int) -> list[PlannedTurn]:
        """The turns of one matter, at most `room`."""
        draws: dict[str, Callable[[], list[PlannedTurn]]] = {
            "both": self._draw_both, "ask": self._draw_ask, "lost": self._draw_lost, "rule": self._draw_rule,
            "confirm": self._draw_confirm, "limit": self._draw_limited, "outside": self._draw_outside,
        }  # fmt: skip
        kind = self._rng.choices([*SHARES], [*SHARES.values()])[0]
        if room > 1 or kind not in ("ask", "lost", "rule", "confirm"):
            try:
                if kind in draws:
                    return draws[kind]()
            except _Impossible:
                pass
        return self._draw_one()

    def _draw_one(self) -> list[PlannedTurn]:
        return [self._turn("call", self._draw_goal())]

    def _draw_both(self) -> list[PlannedTurn]:
        """Two things at once, of different kinds of records, so that their order makes no difference."""
        first = self._draw_goal()
        second = self._draw_goal()
        if second.tool.entity is first.tool.entity:
            raise _Impossible
        turns = [self._turn("call", first), self._turn("call", second)]
        return [
            PlannedTurn(
                kind="both",
                notes=" And: ".join(turn.notes for turn in turns),
                calls=(*turns[0].calls, *turns[1].calls),
                facts=(*turns[0].facts, *turns[1].facts),
            )
        ]

    def _turn(self, kind: TurnKind, goal: _Goal, said: str = "") -> PlannedTurn:
        """A turn whose calls are executed now."""
        results = [self._execute(call) for call in goal.calls]
        if kind == "call" and any(result.failed for result in results):
            raise AssertionError(f"planned calls fail: {goal.calls}")
        facts = [
            (words, find_value(json.loads(results[-1].text), value.path) if isinstance(value, EntityField) else value)
            for words, value in goal.facts
        ]
        recovers = kind == "call" and _names_branch(goal)
        notes = said or f"{_join_notes(goal)}."
        return PlannedTurn(
            kind="recover" if recovers else kind, notes=notes, calls=tuple(goal.calls), facts=tuple(facts)
        )

    def _execute(self, call: ToolCall) -> ToolResult:
        return self._service.execute(call, self._offered)

    def _tool(self, entity: Entity, operation: str) -> ServiceTool:
        fitting = [
            tool for tool in self._service.tools.values() if tool.entity is entity and tool.operation == operation
        ]
        return self._rng.choice(fitting)

    def _draw_goal(self, operations: Sequence[str] = ()) -> _Goal:
        """A goal that the state allows, whose record no earlier turn was about."""
        usual = "get get search count create create update update note archive move move".split()
        usual += [] if self._confirms else ["remove"]
        for _ in range(MAX_DRAWS):
            entity = self._rng.choice(self._service.domain.entities)
            tool = self._tool(entity, self._rng.choice(operations or usual))
            try:
                match tool.operation:
                    case "search" | "count":
                        return self._draw_list_goal(tool)
                    case "create":
                        return self._draw_create_goal(tool)
                    case _:
                        return self._draw_record_goal(tool)
            except _Impossible:
                continue
        raise _Impossible

    def _draw_record(self, tool: ServiceTool) -> Record:
        records = [
            record
            for number, record in self._service.records[tool.entity.name].items()
            if number not in self._touched
            and not record.get("archived")
            and (tool.change is None or record["status"] == tool.change.before)
            and (tool.operation == "get" or not self._is_over_limit(tool.entity, record))
        ]
        if not records:
            raise _Impossible
        return self._rng.choice(records)

    def _is_over_limit(self, entity: Entity, record: Record) -> bool:
        """Whether a rule of the service forbids to change the record."""
        if not self._limit or self._limit.entity is not entity:
            return False
        return (find_value(record, self._limit.field.path) or 0) > self._limit.most

    def _refer(self, tool: ServiceTool, record: Record) -> tuple[list[str], list[ToolCall]]:
        """How the user names a record, and the lookup that this needs."""
        label = tool.entity.label
        if self._rng.random() < 0.5:
            return [f"number: {record['id']}"], []
        search = self._tool(tool.entity, "search").spec.name
        return [f"{label.words}: {record[label.path[0]]} (its number is not known)"], [
            ToolCall(name=search, arguments={label.path[0]: record[label.path[0]]})
        ]

    def _draw_record_goal(self, tool: ServiceTool) -> _Goal:
        record = self._draw_record(tool)
        self._touched.add(record["id"])
        notes, calls = self._refer(tool, record)
        arguments: Record = {"id": record["id"]}
        facts: list[tuple[str, Any]] = []
        if tool.operation == "get":
            kinds = ("int", "money", "date", "past", "time", "one", "text")
            fields = [field for field in tool.entity.fields if field.kind in kinds]
            known = [(field.words, value) for field in fields if (value := find_value(record, field.path)) is not None]
            facts = self._rng.sample(known, min(len(known), self._rng.randint(1, 3))) or [("status", record["status"])]
            notes.append(f"asked: {', '.join(words for words, _ in facts)}")
        elif tool.operation == "update":
            changed = self._draw_changes(tool.entity, record)
            notes += self._describe(changed)
            arguments |= nest_values({field.path: value for field, value in changed})
        elif tool.operation == "note":
            arguments["text"] = self._rng.choice(NOTE_TEXTS)
            notes.append(f'the note, word for word: "{arguments["text"]}"')
            if self._rng.random() < 0.4:
                arguments["visible_to"] = "everybody"
                notes.append("visible to: everybody")
        return _Goal(tool, notes, [*calls, ToolCall(name=tool.spec.name, arguments=arguments)], facts)

    def _draw_changes(self, entity: Entity, record: Record) -> list[tuple[EntityField, Any]]:
        changed = []
        free = [field for field in entity.given if field is not entity.label and field.kind != "flag"]
        for field in self._rng.sample(free, self._rng.choice((1, 1, 2))):
            value = self._service.draw_value(field, self._rng, self._most(entity, field))
            if value != find_value(record, field.path):
                changed.append((field, value))
        if not changed:
            raise _Impossible
        return changed

    def _most(self, entity: Entity, field: EntityField) -> int | None:
        return self._limit.most if self._limit and (entity, field) == self._limit[:2] else None

    def _draw_create_goal(self, tool: ServiceTool) -> _Goal:
        entity, rng = tool.entity, self._rng
        labels = self._service.free_labels(entity)
        if not labels:
            raise _Impossible
        values: list[tuple[EntityField, Any]] = [(entity.label, rng.choice(labels))]
        for field in entity.given[1:]:
            outer = any(other.path[0] == field.path[0] and not other.optional for other in entity.given[1:])
            if not field.optional or rng.random() < (0.5 if len(field.path) == 1 or outer else 0.35):
                values.append((field, self._service.draw_value(field, rng, self._most(entity, field))))
        arguments = nest_values({field.path: value for field, value in values})
        asked = [field for field in entity.fields if field.computed]
        notes = [*self._describe(values), *(f"asked: {field.words}" for field in asked)]
        # What the service sets is known once the call is made.
        call = ToolCall(name=tool.spec.name, arguments=arguments)
        return _Goal(tool, notes, [call], [(field.words, field) for field in asked])

    def _describe(self, values: Sequence[tuple[EntityField, Any]]) -> list[str]:
        return [f"{field.words}: {self._format(field, value)}" for field, value in values]

    def _format(self, field: EntityField, value: Any) -> str:
        if field.kind == "branch":
            return f"{self._service.branches[value]} (as people call it)"
        if field.kind in ("date", "past"):
            return spell_day(value)
        shown = "yes" if value is True else ", ".join(value) if isinstance(value, list) else f"{value}"
        return f"{shown} {field.unit}".strip()

    def _draw_list_goal(self, tool: ServiceTool) -> _Goal:
        entity, rng = tool.entity, self._rng
        arguments: Record = {}
        choices = [field for field in entity.fields if field.kind == "one"]
        if entity.date_field and rng.random() < 0.35:
            days = sorted(self._service.draw_value(entity.date_field, rng) for _ in range(2))
            arguments["dates"] = {"from": days[0], "to": days[1]}
            notes = [f"{entity.date_field.words}: from {spell_day(days[0])} to {spell_day(days[1])}"]
        elif choices and rng.random() < 0.5:
            field = rng.choice(choices)
            arguments[field.path[-1]] = rng.choice(field.values)
            notes = [f"only with {field.words}: {arguments[field.path[-1]]}"]
        else:
            arguments["status"] = rng.choice(entity.statuses)
            notes = [f"only with status: {arguments['status']}"]
        sums = [field for field in entity.fields if field.numeric]
        if tool.operation == "count" and sums and rng.random() < 0.6:
            field = rng.choice(sums)
            arguments["total_of"] = field.path[-1]
            notes.append(f"total of: {field.words}")
        call = ToolCall(name=tool.spec.name, arguments=arguments)
        result = json.loads(self._execute(call).text)
        if not result.get("count", 1):
            raise _Impossible
        if tool.operation == "count":
            facts = [(key.replace("_", " "), value) for key, value in result.items()]
            return _Goal(tool, [*notes, "asked: the number"], [call], facts)
        names = [record[entity.label.path[0]] for record in result["list"]]
        if not 1 <= len(names) <= MAX_FACTS:
            raise _Impossible
        facts = [(entity.label.words, name) for name in names]
        asked = f"asked: the {entity.label.words} of each"
        return _Goal(tool, [*notes, asked], [call], facts)

    def _draw_ask(self) -> list[PlannedTurn]:
        """A detail is missing: the assistant asks, then the user gives it."""
        goal = self._draw_goal(["create"])
        entity = goal.tool.entity
        fields = [field for field in entity.given[1:] if not field.optional and field.kind != "branch"]
        if not fields:
            raise _Impossible
        field = self._rng.choice(fields)
        missing = next(note for note in goal.notes if note.startswith(f"{field.words}: "))
        kept = goal._replace(notes=[note for note in goal.notes if note != missing])
        first = PlannedTurn(
            kind="ask", notes=f"{_join_notes(kept)}. Nothing about: {field.words}.", tools=(goal.tool.spec.name,)
        )
        return [first, self._turn("call", goal, f"The user gives what was missing. {missing}.")]

    def _draw_lost(self) -> list[PlannedTurn]:
        """A number that nobody has, then the right one."""
        goal = self._draw_goal(["get", "update", "move", "archive"])
        number = goal.calls[-1].arguments["id"]
        wrong = f"{number[:-1]}{(int(number[-1]) + 4) % 10}"
        if wrong in self._service.records[goal.tool.entity.name]:
            raise _Impossible
        call = goal.calls[-1].model_copy(update={"arguments": {**goal.calls[-1].arguments, "id": wrong}})
        first = self._turn("error", goal._replace(notes=[f"number: {wrong}", *goal.notes[1:]], calls=[call], facts=[]))
        right = goal._replace(calls=goal.calls[-1:])
        return [first, self._turn("call", right, f"The user has read the number wrongly. number: {number}.")]

    def _draw_rule(self) -> list[PlannedTurn]:
        """More than the service allows, then less."""
        goal = self._draw_goal(["create"])
        entity = goal.tool.entity
        fields = [
            field for field in entity.given if field.kind == "int" and find_value(goal.calls[-1].arguments, field.path)
        ]
        fields = [field for field in fields if self._most(entity, field) is None]
        if not fields or _names_branch(goal):
            raise _Impossible
        field = self._rng.choice(fields)
        right, wrong = find_value(goal.calls[-1].arguments, field.path), int(field.values[1]) + self._rng.randint(1, 9)
        call = goal.calls[-1].model_copy(update={"arguments": _with_value(goal.calls[-1].arguments, field.path, wrong)})
        first = self._turn("error", self._replace_value(goal, field, wrong)._replace(calls=[call], facts=[]))
        return [first, self._turn("call", goal, f"The user takes less. {self._describe([(field, right)])[0]}.")]

    def _replace_value(self, goal: _Goal, field: EntityField, value: int) -> _Goal:
        """The goal with another value in its notes."""
        (new,) = self._describe([(field, value)])
        return goal._replace(notes=[new if note.startswith(f"{field.words}: ") else note for note in goal.notes])

    def _draw_confirm(self) -> list[PlannedTurn]:
        """Something is to be removed: the assistant asks first, and the user agrees or not."""
        if not self._confirms:
            raise _Impossible
        goal = self._draw_goal(["remove"])
        tools = tuple(call.name for call in goal.calls)
        first = PlannedTurn(kind="confirm", notes=f"{_join_notes(goal)}.", tools=tools)
        if self._rng.random() < REFUSE_SHARE:
            return [
                first,
                PlannedTurn(
                    kind="refuse", notes="No. The user has thought again: nothing is to be removed.", tools=tools
                ),
            ]
        return [first, self._turn("call", goal, "Yes. The user agrees that it is removed.")]

    def _draw_limited(self) -> list[PlannedTurn]:
        """More than the rules of the system message allow."""
        if not self._limit:
            raise _Impossible
        entity, field, most = self._limit
        goal = self._draw_create_goal(self._tool(entity, "create"))
        if _names_branch(goal):
            raise _Impossible
        over = self._rng.randint(most + 1, int(field.values[1]))
        notes = f"{_join_notes(self._replace_value(goal, field, over))}."
        return [PlannedTurn(kind="limit", notes=notes, tools=(goal.tool.spec.name,))]

    def _draw_outside(self) -> list[PlannedTurn]:
        if not self._outside:
            raise _Impossible
        return [PlannedTurn(kind="outside", notes=f"something that no tool here does: {self._outside.pop()}.")]


NOTE_TEXTS = (
    "Rings only after six in the evening", "Has paid in cash", "Wants a quiet corner", "Speaks mostly French", "Comes with a dog",
    "Prefers to be called by first name", "Will bring the papers along", "Asked for a receipt", "Had trouble with the stairs",
    "Was very content last time", "Please use the side door", "Knows the way",
)  # fmt: skip


def _names_branch(goal: _Goal) -> bool:
    """Whether the user names a branch, whose code only the service knows."""
    return any(note.partition(": ")[0].endswith("branch") for note in goal.notes)


def _join_notes(goal: _Goal) -> str:
    return f"{goal.tool.phrase}; {'; '.join(goal.notes)}"


def _with_value(values: Record, path: tuple[str, ...], value: Any) -> Record:
    return {**values, path[0]: value if len(path) == 1 else _with_value(values.get(path[0], {}), path[1:], value)}


def spell_day(day: str) -> str:
    on = date.fromisoformat(day)
    return f"{on.day} {on:%B %Y}"
