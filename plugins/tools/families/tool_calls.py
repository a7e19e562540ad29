"""Conversations with tools: JSON-schema tools of a small simulated world, executed calls, several turns.

Each seed plans its conversation: the offered tools, the calls with their results, and the turns without a call. The
generator writes the conversation, and its calls are executed again. Knows no teacher.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from random import Random
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from agents.checks import Options
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import InvalidReply, ReplySchema
from core.sample import Candidate, Message, Seed, ToolCall
from plugins.tools.checks.conversation_checks import tool_arguments_check, tool_result_check, tool_use_check
from plugins.tools.families.conversation_form import HERMES, INTROS, TOOL_DEFAULTS, TOOL_PROMPTS
from plugins.tools.families.user_tools import UserToolsFamily
from plugins.tools.simulation import SIMULATED_TOOLS
from plugins.tools.simulation.conversation_plan import (
    PlannedCall,
    TurnKind,
    describe_turn,
    draw_plan,
    dump_json,
    parse_planned_turn,
)
from plugins.tools.simulation.scenario_domains import DOMAINS_BY_NAME, Domain
from plugins.tools.simulation.simulated_tool import WorldState, run_tool
from plugins.tools.simulation.simulated_world import CALENDAR_DAYS, EVERYTHING, add_days

MAX_CALLS = 4
"""Of one turn."""
DATE_IN_PLAN = re.compile(r"\b\d{4}-\d\d-\d\d\b")
USER_TOOLS = UserToolsFamily()


class DraftCall(ReplySchema):
    name: str = Field(min_length=1, max_length=80)
    arguments: dict[str, Any]


class DraftTurn(ReplySchema):
    request: str = Field(min_length=1, max_length=2000)
    calls: list[DraftCall] = Field(max_length=MAX_CALLS)
    reply: str = Field(min_length=1, max_length=2000)


class ToolDraft(ReplySchema):
    turns: list[DraftTurn] = Field(min_length=1)


class ToolOptions(Options):
    turns: tuple[Annotated[int, Field(ge=1, le=4)], ...] = Field((1, 2), min_length=1)
    """Number of user turns of a conversation: one of these at random."""
    tools: tuple[Annotated[int, Field(ge=1, le=8)], ...] = Field((2, 3, 4), min_length=1)
    """Number of offered tools: one of these at random; more if the turns need more."""
    none: float = Field(0.15, ge=0, le=1)
    """Share of the turns without a call: in half of them a required argument is missing, in half no tool fits."""
    errors: float = Field(0.1, ge=0, le=1)
    """Share of the turns whose call fails: an unknown name, a time that is taken, too few in stock."""
    chains: float = Field(0.15, ge=0, le=1)
    """Share of the turns with two calls, the second of which works on the result of the first."""
    parallel: float = Field(0.1, ge=0, le=1)
    """Share of the turns with two calls of one tool at once."""
    written_out: bool = True
    """Whether the system message contains the tools in Hermes' form, and the dataset has no column `tools`. If false, they are
    only in that column, for chat templates that render it."""

    @model_validator(mode="after")
    def _one_whole(self) -> Self:
        if (total := self.none + self.errors + self.chains + self.parallel) > 1 + 1e-9:
            raise ValueError(
                f"none, errors, chains and parallel add up to {total:g}; they are shares, so lower them to 1"
            )
        return self

    @property
    def weights(self) -> dict[TurnKind, float]:
        special: dict[TurnKind, float] = {
            "chain": self.chains,
            "parallel": self.parallel,
            "error": self.errors,
            "ask": self.none / 2,
            "outside": self.none / 2,
        }
        return {"call": max(0.0, 1 - sum(special.values())), **special}


class ToolCallsFamily(RecipeFamily):
    name = "tool_calls"
    prompts = TOOL_PROMPTS / "tool_calls"
    fields = ("tools", "turns")
    options = ToolOptions
    checks = (tool_use_check, tool_arguments_check, tool_result_check)
    defaults: ClassVar[Mapping[str, Any]] = TOOL_DEFAULTS

    def for_sections(self, names: Collection[str]) -> RecipeFamily:
        """With `[[tools]]`, the engine whose calls are executed by them."""
        return USER_TOOLS if "tools" in names else self

    def condition(self, row: Mapping[str, Any], options: ToolOptions, rng: Random) -> dict[str, Any]:
        names = row["tools"]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UnusableSeedRow("'tools' with a list of names of tools")
        if unknown := [name for name in names if name not in SIMULATED_TOOLS]:
            raise UnusableSeedRow(
                f"'tools' with names of tools, not {unknown[0]!r}; there are {', '.join(SIMULATED_TOOLS)}"
            )
        fitting = list(dict.fromkeys(names))
        domain = _find_row_domain(row)

        kinds = rng.choices([*options.weights], [*options.weights.values()], k=rng.choice(options.turns))
        offered, world, wishes = draw_plan(rng, fitting, kinds, rng.choice(options.tools), domain)
        return {
            "who": require_text(row, "who"),
            "why": require_text(row, "why"),
            "category": wishes[0].kind,
            "offered": offered,
            "world": world,
            "wishes": [wish.to_dict() for wish in wishes],
            "intro": rng.choice(INTROS),
            "written_out": options.written_out,
        }

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ToolDraft

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        """The reply's schema with the seed's number of turns, and with calls of the offered tools only."""
        count = len(seed.data["wishes"])
        tools = [SIMULATED_TOOLS[name].function()["function"] for name in seed.data["offered"]]
        call = {
            "anyOf": [
                _closed_object({"name": {"const": tool["name"], "type": "string"}, "arguments": tool["parameters"]})
                for tool in tools
            ]
        }
        texts = {"type": "string", "minLength": 1, "maxLength": 2000}
        calls = {"type": "array", "items": call, "maxItems": MAX_CALLS}
        turn = _closed_object({"request": texts, "calls": calls, "reply": texts})
        return _closed_object({"turns": {"type": "array", "items": turn, "minItems": count, "maxItems": count}})

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        data, today = seed.data, seed.data["world"]["today"]
        named = DATE_IN_PLAN.findall(json.dumps(data["wishes"]))
        listed = sorted({*(add_days(today, ahead) for ahead in range(1, CALENDAR_DAYS + 1)), *named} - {today})
        days = ", ".join(f"{_long_date(day)} is {day}" for day in listed)
        tools = "\n".join(f"- {name}: {SIMULATED_TOOLS[name].description}" for name in data["offered"])
        turns = "\n".join(
            f"Turn {i}, {describe_turn(parse_planned_turn(wish))}" for i, wish in enumerate(data["wishes"], 1)
        )
        return {
            "plan": f"The user: {data['who']}, who {data['why']}.\nToday is {_long_date(today)} ({today}). {days}.\n"
            f"Tools:\n{tools}\n{turns}"
        }

    def reviewed_messages(self, candidate: Candidate) -> Sequence[Message]:
        """Without the system message: the request has the day and the tools, and a critic of the talk needs no schemas."""
        return [message for message in candidate.messages if message.role != "system"]

    def candidate(self, seed: Seed, draft: ToolDraft) -> Candidate:
        wishes = [parse_planned_turn(data) for data in seed.data["wishes"]]
        if len(draft.turns) != len(wishes):
            raise InvalidReply(f"turns: {len(draft.turns)}, not the {len(wishes)} of the plan")
        tools = [SIMULATED_TOOLS[name].function() for name in seed.data["offered"]]
        system = f"{seed.data['intro']} Today is {_long_date(seed.data['world']['today'])}."
        if seed.data["written_out"]:
            signatures = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
            system = HERMES.format(intro=system, tools=signatures)
        messages = [Message(role="system", content=system)]

        world: WorldState = seed.data["world"]
        turns = []
        for turn, wish in zip(draft.turns, wishes, strict=True):
            conversation, results, world = _execute_turn(
                seed.data["offered"], turn, world, one_by_one=wish.kind == "chain"
            )
            messages += conversation
            calls = [
                {**_plain_call(call)._asdict(), "result": result}
                for call, result in zip(turn.calls, results, strict=True)
            ]
            turns.append({"request": turn.request.strip(), "calls": calls, "reply": turn.reply.strip()})
        return Candidate(messages=messages, fields={"tools": tools, "turns": turns})


def _find_row_domain(row: Mapping[str, Any]) -> Domain:
    """Raises UnusableSeedRow for an unknown domain; a row without one may be about anything."""
    if "domain" not in row:
        return EVERYTHING
    name = require_text(row, "domain")
    if name not in DOMAINS_BY_NAME:
        raise UnusableSeedRow(f"'domain' with one of {', '.join(DOMAINS_BY_NAME)}, not {name!r}")
    return DOMAINS_BY_NAME[name]


def _long_date(day: str) -> str:
    on = date.fromisoformat(day)
    return f"{on:%A}, {on.day} {on:%B %Y}"


def _closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _plain_call(call: DraftCall) -> PlannedCall:
    """Raises InvalidReply for numbers that JSON does not have."""
    try:
        return PlannedCall(call.name, json.loads(json.dumps(call.arguments, allow_nan=False)))
    except ValueError:
        raise InvalidReply("calls: NaN and Infinity are no JSON") from None


def _execute_turn(
    offered: Sequence[str], turn: DraftTurn, world: WorldState, *, one_by_one: bool
) -> tuple[list[Message], list[dict[str, Any]], WorldState]:
    """A turn as messages, with what its calls really return, and the world after it."""
    tools = {name: SIMULATED_TOOLS[name] for name in offered}
    messages, results = [Message(role="user", content=turn.request.strip())], []
    calls = [_plain_call(call) for call in turn.calls]
    for step in [[call] for call in calls] if one_by_one else [calls] if calls else []:
        made = tuple(ToolCall(name=call.name, arguments=call.arguments) for call in step)
        messages.append(Message(role="assistant", content="", tool_calls=made))
        for call in step:
            result, world = run_tool(world, tools, call.name, call.arguments)
            results.append(result)
            messages.append(Message(role="tool", name=call.name, content=dump_json(result)))
    return [*messages, Message(role="assistant", content=turn.reply.strip())], results, world
