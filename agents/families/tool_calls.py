"""Conversations with tools: JSON-schema tools of a small simulated world, calls that are really executed, several turns.

Each seed plans its conversation: who asks, which tools are offered, which calls are made with which results, and in which
turns none is. The generator puts it into words; what it writes is executed again. Knows no teacher.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from random import Random
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from agents.checks import Options
from agents.contract import Contract, ContractFault
from agents.families.base import BadSeed, Family, text_in
from agents.families.tools import TOOLS, World, run_tool
from agents.families.tools.checks import tool_arguments, tool_result, tool_use
from agents.families.tools.plan import Call, Kind, as_json, draw_plan, in_words, wish_of
from agents.families.tools.world import later
from core.sample import Candidate, Message, Seed, ToolCall

MAX_CALLS = 4
"""Of one turn."""
HERMES = """{intro}

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a JSON object with the function's name and its arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <arguments-as-json-object>}}
</tool_call>"""
"""The form of NousResearch's Hermes models, which Qwen's chat template writes too."""
INTROS = (
    "You are a helpful assistant that can call functions. Call one only where it is needed, and never make up arguments.",
    "You are an assistant with tools. Use them where they help; ask when something that they need is missing.",
    "Answer the user's requests. You may call functions, and you answer in words from what they return.",
    "You help people with everyday matters and may call the functions below. If none fits, say so.",
)


class DraftCall(Contract):
    name: str = Field(min_length=1, max_length=80)
    arguments: dict[str, Any]


class DraftTurn(Contract):
    request: str = Field(min_length=1, max_length=2000)
    calls: list[DraftCall] = Field(max_length=MAX_CALLS)
    reply: str = Field(min_length=1, max_length=2000)


class ToolDraft(Contract):
    turns: list[DraftTurn] = Field(min_length=1)


class ToolOptions(Options):
    turns: tuple[Annotated[int, Field(ge=1, le=4)], ...] = Field((1, 2), min_length=1)
    """How many turns of the user a conversation has: one of these, at random."""
    tools: tuple[Annotated[int, Field(ge=1, le=8)], ...] = Field((2, 3, 4), min_length=1)
    """How many tools are offered: one of these, at random; more where the turns need more."""
    none: float = Field(0.15, ge=0, le=1)
    """Share of the turns without a call: in half of them a required argument is missing, in half no tool fits."""
    errors: float = Field(0.1, ge=0, le=1)
    """Share of the turns whose call fails: an unknown name, a time that is taken, too few in stock."""
    chains: float = Field(0.15, ge=0, le=1)
    """Share of the turns with two calls, the second of which works on the result of the first."""
    parallel: float = Field(0.1, ge=0, le=1)
    """Share of the turns with two calls of one tool at once."""
    written_out: bool = True
    """Whether the system message has the tools in Hermes' form. Without it, they stand in the dataset's `tools` alone, for
    chat templates that write them out."""

    @model_validator(mode="after")
    def _one_whole(self) -> Self:
        if (total := self.none + self.errors + self.chains + self.parallel) > 1 + 1e-9:
            raise ValueError(
                f"none, errors, chains and parallel add up to {total:g}; they are shares, so lower them to 1"
            )
        return self

    @property
    def weights(self) -> dict[Kind, float]:
        special: dict[Kind, float] = {
            "chain": self.chains,
            "parallel": self.parallel,
            "error": self.errors,
            "ask": self.none / 2,
            "outside": self.none / 2,
        }
        return {"call": max(0.0, 1 - sum(special.values())), **special}


class ToolCalls(Family):
    name = "tool_calls"
    options = ToolOptions
    checks = (tool_use, tool_arguments, tool_result)

    def condition(self, row: Mapping[str, Any], options: ToolOptions, rng: Random) -> dict[str, Any]:
        fitting = _fitting(row)
        kinds = rng.choices([*options.weights], [*options.weights.values()], k=rng.choice(options.turns))
        offered, world, wishes = draw_plan(rng, fitting, kinds, rng.choice(options.tools))
        return {
            "who": text_in(row, "who"),
            "why": text_in(row, "why"),
            "category": wishes[0].kind,
            "offered": offered,
            "world": world,
            "wishes": [wish.as_data() for wish in wishes],
            "intro": rng.choice(INTROS),
            "written_out": options.written_out,
        }

    def contract(self, seed: Seed) -> type[Contract]:
        return ToolDraft

    def reply_schema(self, seed: Seed) -> dict[str, Any]:
        """So many turns, and calls of the offered tools only."""
        count = len(seed.data["wishes"])
        call = {"anyOf": [_call_schema(name) for name in seed.data["offered"]]}
        texts = {"type": "string", "minLength": 1, "maxLength": 2000}
        calls = {"type": "array", "items": call, "maxItems": MAX_CALLS}
        turn = _closed({"request": texts, "calls": calls, "reply": texts})
        return _closed({"turns": {"type": "array", "items": turn, "minItems": count, "maxItems": count}})

    def values(self, seed: Seed) -> dict[str, str]:
        return {"plan": _plan(seed.data)}

    def candidate(self, seed: Seed, draft: ToolDraft) -> Candidate:
        wishes = [wish_of(data) for data in seed.data["wishes"]]
        if len(draft.turns) != len(wishes):
            raise ContractFault(f"turns: {len(draft.turns)}, not the {len(wishes)} of the plan")
        tools = [TOOLS[name].function() for name in seed.data["offered"]]
        messages = [Message(role="system", content=_system(seed.data, tools))]
        world: World = seed.data["world"]
        turns = []
        for turn, wish in zip(draft.turns, wishes, strict=True):
            said, results, world = _played(seed.data["offered"], turn, world, one_by_one=wish.kind == "chain")
            messages += said
            calls = [
                {**_plain(call)._asdict(), "result": result} for call, result in zip(turn.calls, results, strict=True)
            ]
            turns.append({"request": turn.request.strip(), "calls": calls, "reply": turn.reply.strip()})
        return Candidate(messages=messages, fields={"tools": tools, "turns": turns})


def _fitting(row: Mapping[str, Any]) -> list[str]:
    """The tools that a row's scenario calls for."""
    names = row["tools"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise BadSeed("'tools' with a list of names of tools")
    if unknown := [name for name in names if name not in TOOLS]:
        raise BadSeed(f"'tools' with names of tools, not {unknown[0]!r}; there are {', '.join(TOOLS)}")
    return list(dict.fromkeys(names))


def _system(data: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> str:
    dated = f"{data['intro']} Today is {_long(data['world']['today'])}."
    if not data["written_out"]:
        return dated
    return HERMES.format(intro=dated, tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))


def _long(day: str) -> str:
    on = date.fromisoformat(day)
    return f"{on:%A}, {on.day} {on:%B %Y}"


def _call_schema(name: str) -> dict[str, Any]:
    arguments = TOOLS[name].function()["function"]["parameters"]
    return _closed({"name": {"const": name, "type": "string"}, "arguments": arguments})


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _plan(data: Mapping[str, Any]) -> str:
    """What the generator is told of one conversation."""
    today = data["world"]["today"]
    days = ", ".join(f"{_long(later(today, ahead))} is {later(today, ahead)}" for ahead in range(1, 8))
    tools = "\n".join(f"- {name}: {TOOLS[name].description}" for name in data["offered"])
    turns = "\n".join(f"Turn {i}, {in_words(wish_of(wish))}" for i, wish in enumerate(data["wishes"], 1))
    return (
        f"The user: {data['who']}, who {data['why']}.\nToday is {_long(today)} ({today}). {days}.\n"
        f"Tools:\n{tools}\n{turns}"
    )


def _plain(call: DraftCall) -> Call:
    """Raises ContractFault for numbers that JSON does not have."""
    try:
        return Call(call.name, json.loads(json.dumps(call.arguments, allow_nan=False)))
    except ValueError:
        raise ContractFault("calls: NaN and Infinity are no JSON") from None


def _played(
    offered: Sequence[str], turn: DraftTurn, world: World, *, one_by_one: bool
) -> tuple[list[Message], list[dict[str, Any]], World]:
    """A turn as messages, with what its calls really return, and the world after it."""
    tools = {name: TOOLS[name] for name in offered}
    messages, results = [Message(role="user", content=turn.request.strip())], []
    calls = [_plain(call) for call in turn.calls]
    for step in [[call] for call in calls] if one_by_one else [calls] if calls else []:
        made = tuple(ToolCall(name=call.name, arguments=call.arguments) for call in step)
        messages.append(Message(role="assistant", content="", tool_calls=made))
        for call in step:
            result, world = run_tool(world, tools, call.name, call.arguments)
            results.append(result)
            messages.append(Message(role="tool", name=call.name, content=as_json(result)))
    return [*messages, Message(role="assistant", content=turn.reply.strip())], results, world
