"""Conversations with simulated services by a scripted teacher: executed tools, planted wrong calls, and the variety of requests.

A wrong call is planted in one turn of a kept conversation, which ends there: all calls are executed anew, and the reply states
what then came out, so that only the call is wrong; except for `no call`, where the reply stays. The control is the same
conversation as it was.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from agents.calls.agent_context import open_scratch_context
from agents.checks import Subject
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import produce_samples
from benchmarks.machine import describe_measurement
from core.sample import Sample, SampleStatus, Seed, ToolCall
from core.weights.embeddings import embed_texts
from filters.collapse.diversity import vendi_score
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.tools.checks.call_schema import tool_schema_check
from plugins.tools.checks.conversation_checks import (
    ConversationTurn,
    split_turns,
    tool_arguments_check,
    tool_use_check,
)
from plugins.tools.checks.reply_checks import tool_result_check
from plugins.tools.simulation.service_state import SimulatedService, find_value, nest_values
from plugins.tools.tool_family import SimulatedToolsFamily, ToolTranscript
from plugins.tools.tool_script import describe_service_results
from plugins.tools.toolbox.tool_spec import read_parameter_schemas

SAMPLES = 100
COMPARED = 200
"""Requests whose variety is measured."""
SETTINGS = ["teachers.main={model='fake/tool_calls'}", "agents.critic=false", "topology.max_revisions=0"]
CHECKS = (tool_schema_check, tool_use_check, tool_arguments_check, tool_result_check)
Calls = list[ToolCall]
Planter = Callable[["PlantedTurn", Random], Calls | None]


class PlantedTurn(NamedTuple):
    """A turn in which a wrong call can be planted."""

    service: SimulatedService
    """As it is before the turn."""
    kind: str
    calls: Calls
    offered: Sequence[str]


def _last(turn: PlantedTurn, operations: Sequence[str]) -> ToolCall | None:
    """The turn's last call if it does one of these operations."""
    fits = turn.calls and turn.kind == "call" and turn.service.tools[turn.calls[-1].name].operation in operations
    return turn.calls[-1] if fits else None


def _change(call: ToolCall, **changed: Any) -> ToolCall:
    return call.model_copy(update={"arguments": {**call.arguments, **changed}})


ACTS = ("create", "update", "archive", "note", "move", "remove")


def plant_tool(turn: PlantedTurn, rng: Random) -> Calls | None:
    """Another offered tool of the same records, with the same arguments."""
    call = _last(turn, ("archive", "move", "remove", "get"))
    if not call:
        return None
    mine = turn.service.tools[call.name]
    others = [
        name
        for name in turn.offered
        if name != call.name
        and turn.service.tools[name].entity == mine.entity
        and turn.service.tools[name].operation in ("archive", "move", "remove", "get")
    ]
    return [*turn.calls[:-1], call.model_copy(update={"name": rng.choice(others)})] if others else None


def plant_record(turn: PlantedTurn, rng: Random) -> Calls | None:
    """Another record of the same kind."""
    call = _last(turn, ("update", "archive", "note", "remove", "get"))
    if not call:
        return None
    records = turn.service.records[turn.service.tools[call.name].entity.name]
    return [
        *turn.calls[:-1],
        _change(call, id=rng.choice([number for number in records if number != call.arguments["id"]])),
    ]


def plant_value(turn: PlantedTurn, rng: Random) -> Calls | None:
    """Another value of an argument that the user named."""
    call = _last(turn, ("create", "update"))
    if not call:
        return None
    fields = turn.service.tools[call.name].entity.given
    given = [
        field
        for field in fields
        if len(field.path) == 1 and field.path[0] in call.arguments and field.kind not in ("flag", "branch")
    ]
    if not given:
        return None
    field = rng.choice(given)
    values = [turn.service.draw_value(field, rng) for _ in range(20)]
    other = next((value for value in values if value != call.arguments[field.path[0]]), None)
    return [*turn.calls[:-1], _change(call, **{field.path[0]: other})] if other is not None else None


def plant_dropped_option(turn: PlantedTurn, rng: Random) -> Calls | None:
    """Without an optional argument that the user named."""
    call = _last(turn, ("create", "update", "note"))
    required = turn.service.tools[call.name].spec.parameters["required"] if call else []
    optional = [name for name in call.arguments if name not in required] if call else []
    if not call or not optional or len(call.arguments) < 2 + (turn.service.tools[call.name].operation == "update"):
        return None
    dropped = rng.choice(optional)
    return [
        *turn.calls[:-1],
        call.model_copy(update={"arguments": {k: v for k, v in call.arguments.items() if k != dropped}}),
    ]


def plant_invented_option(turn: PlantedTurn, rng: Random) -> Calls | None:
    """With an optional argument that nobody named."""
    call = _last(turn, ("create", "update"))
    if not call:
        return None
    fields = turn.service.tools[call.name].entity.given
    free = [f for f in fields if (f.optional or "id" in call.arguments) and find_value(call.arguments, f.path) is None]
    free = [field for field in free if field.path[0] not in call.arguments and field.kind != "branch"]
    if not free:
        return None
    field = rng.choice(free)
    return [*turn.calls[:-1], _change(call, **nest_values({field.path: turn.service.draw_value(field, rng)}))]


def plant_schema_fault(turn: PlantedTurn, rng: Random) -> Calls | None:
    """A wrong type, or an argument that the tool does not have."""
    call = _last(turn, ACTS)
    if not call:
        return None
    key = rng.choice(list(call.arguments))
    changed = {key: [call.arguments[key]]} if rng.random() < 0.5 else {"remark": "quickly"}
    return [*turn.calls[:-1], _change(call, **changed)]


def plant_nothing(turn: PlantedTurn, rng: Random) -> Calls | None:
    """Without the call that matters."""
    return turn.calls[:-1] if _last(turn, (*ACTS, "get", "search", "count")) else None


def plant_more(turn: PlantedTurn, rng: Random) -> Calls | None:
    """One more call, of an offered tool that changes another record."""
    call = _last(turn, (*ACTS, "get", "search", "count"))
    others = [name for name in turn.offered if turn.service.tools[name].operation in ("archive", "remove")]
    if not call or not others:
        return None
    name = rng.choice(others)
    records = [
        number
        for number, record in turn.service.records[turn.service.tools[name].entity.name].items()
        if number not in str(turn.calls) and not record.get("archived")
    ]
    return [*turn.calls, ToolCall(name=name, arguments={"id": rng.choice(records)})] if records else None


def plant_unconfirmed(turn: PlantedTurn, rng: Random) -> Calls | None:
    """Removed without a yes: before the question, or after a no."""
    removing = [name for name in turn.offered if turn.service.tools[name].operation == "remove"]
    if turn.kind not in ("confirm", "refuse") or not removing:
        return None
    name = rng.choice(removing)
    records = list(turn.service.records[turn.service.tools[name].entity.name])
    return [*turn.calls, ToolCall(name=name, arguments={"id": rng.choice(records)})]


def plant_filter(turn: PlantedTurn, rng: Random) -> Calls | None:
    """A list or a count of others than the user asked for."""
    call = _last(turn, ("search", "count"))
    if not call:
        return None
    properties = turn.service.tools[call.name].spec.parameters["properties"]
    changed = dict(call.arguments)
    for name, value in call.arguments.items():
        if "enum" in properties[name] and name != "total_of":
            changed[name] = rng.choice([other for other in properties[name]["enum"] if other != value] or [value])
        elif name == "dates":
            changed[name] = {"from": value["from"]}
    return [call.model_copy(update={"arguments": changed})] if changed != call.arguments else None


PLANTERS: Mapping[str, Planter] = {
    "another tool": plant_tool, "another record": plant_record, "another value": plant_value,
    "an option left out": plant_dropped_option, "an option invented": plant_invented_option,
    "against the schema": plant_schema_fault, "no call": plant_nothing, "one call more": plant_more,
    "removed without a yes": plant_unconfirmed, "another filter": plant_filter,
}  # fmt: skip


async def make_conversations(samples: int) -> list[Sample]:
    plan = load_recipe_plan("tool-calls", [*SETTINGS, f"samples={samples}"])
    made: list[Sample] = []
    async with open_scratch_context(plan, threading.Event()) as context:
        await produce_samples(context, RunSeeds(plan, "bench000"), made.append)
    return sorted(made, key=lambda sample: sample.id)


def find_faults(subject: Subject) -> list[str]:
    """The names of the checks that fail."""

    async def run() -> list[str]:
        findings = [await check.findings(subject, check.options()) for check in CHECKS]
        return [
            check.name for check, found in zip(CHECKS, findings, strict=True) if any(not one.passed for one in found)
        ]

    return asyncio.run(run())


def replay(sample: Sample, number: int, calls: Calls | None = None) -> Subject:
    """The conversation up to a turn, whose calls are replaced if others are given."""
    data = sample.seed.data
    service, offered = SimulatedService(**data["service"]), read_parameter_schemas(sample.candidate.fields["tools"])
    turns: list[dict[str, Any]] = []
    before: Sequence[ConversationTurn] = split_turns(sample.candidate.messages)[: number + 1]
    for n, turn in enumerate(before):
        made = (
            [[call] for call in calls]
            if calls is not None and n == number
            else [[call for call, _ in step] for step in turn.steps]
        )
        steps, lines = [], []
        for step in made:
            results = [service.execute(call, offered) for call in step]
            steps.append(
                [
                    {**call.model_dump(), "result": r.content, "failed": r.failed}
                    for call, r in zip(step, results, strict=True)
                ]
            )
            lines += [{"result": result.content} for result in results]
        replaced = calls is not None and n == number and lines
        reply = describe_service_results(lines) if replaced else turn.reply
        turns.append({"kind": data["kinds"][n], "request": turn.request, "steps": steps, "reply": reply})
    cut = {**data, "kinds": data["kinds"][: number + 1], "plan": data["plan"][: number + 1]}
    seed = Seed(id=sample.seed.id, data=cut)
    draft = ToolTranscript.model_validate({"tools": sample.candidate.fields["tools"], "turns": turns})
    return Subject(seed, SimulatedToolsFamily().candidate(seed, draft), None)  # type: ignore[arg-type]


def list_plants(sample: Sample, rng: Random) -> list[tuple[str, int, Calls]]:
    """The wrong calls that can be planted in a conversation: way, number of the turn, its calls."""
    data = sample.seed.data
    service, offered = SimulatedService(**data["service"]), read_parameter_schemas(sample.candidate.fields["tools"])
    plants = []
    for number, turn in enumerate(split_turns(sample.candidate.messages)):
        place = PlantedTurn(service, data["kinds"][number], turn.calls, list(offered))
        for way, planter in PLANTERS.items():
            calls = planter(place, rng)
            if calls is not None:
                plants.append((way, number, calls))
        for call in turn.calls:
            service.execute(call, offered)
    return plants


def plant_faults(samples: Sequence[Sample], rng: Random) -> tuple[dict[str, Counter[str]], list[str]]:
    """By way: planted, found, refused without the fault, and by which check; and what was missed."""
    counts: dict[str, Counter[str]] = {way: Counter() for way in PLANTERS}
    missed = []
    for sample in samples:
        for way, number, calls in list_plants(sample, rng):
            found, control = find_faults(replay(sample, number, calls)), find_faults(replay(sample, number))
            counts[way].update(
                {"planted": 1, "found": bool(found), "refused": bool(control), **dict.fromkeys(found, 1)}
            )
            missed += [] if found else [f"{way}: {sample.id} turn {number + 1}: {calls}"]
    return counts, missed


def table(samples: int = SAMPLES) -> str:
    made = asyncio.run(make_conversations(samples))
    kept = [sample for sample in made if sample.state is SampleStatus.kept]
    executed: Counter[tuple[str, str]] = Counter()
    for sample in kept:
        service = SimulatedService(**sample.seed.data["service"])
        executed.update(
            (service.domain.name, service.tools[call.name].phrase)
            for turn in split_turns(sample.candidate.messages)
            for call in turn.calls
            if call.name in service.tools
        )
    turns = [turn for sample in kept for turn in split_turns(sample.candidate.messages)]
    counts, _ = plant_faults(kept, Random(7))
    planted, found = (sum(count[key] for count in counts.values()) for key in ("planted", "found"))
    names = [check.name for check in CHECKS]
    lines = [
        f"{describe_measurement()}.",
        "",
        f"`tool-calls` by a scripted teacher that makes no mistake: {len(kept)} of {samples} conversations kept, {len(turns)} "
        f"turns, {executed.total():,} calls of {len(executed)} different tools executed. A wrong call is planted in one turn, "
        "the calls are executed again, and the reply states what came out.",
        "",
        f"| planted | turns | found | {' | '.join(names)} | refused without it |",
        f"|---|---:|---:|{'---:|' * len(names)}---:|",
        *(
            f"| {way} | {count['planted']} | {count['found']} | {' | '.join(str(count[name]) for name in names)} "
            f"| {count['refused']} |"
            for way, count in counts.items()
        ),
        f"| all | {planted} | {found} ({found / planted:.1%}) | {' | '.join('' for _ in names)} | "
        f"{sum(count['refused'] for count in counts.values())} |",
        "",
        f"Effective number (Vendi score of all-MiniLM-L6-v2) of {COMPARED} first plans: {measure_variety():.1f}.",
    ]
    return "\n".join(lines)


def measure_variety() -> float:
    """Of what the first turns of `COMPARED` seeds ask for, in the notes that the writer reads."""
    plan = load_recipe_plan("tool-calls", [*SETTINGS, f"samples={COMPARED}"])
    seeds: list[Any] = RunSeeds(plan, "0" * 64)[:]
    return vendi_score(embed_texts([seed.data["plan"][0]["notes"] for seed in seeds]))
