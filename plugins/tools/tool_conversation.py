"""A conversation with tools, simulated ones or the user's own: a teacher writes the user's request, then answers it step by
step, and each call is executed before the next step is asked for. Knows no particular tool.

All replies and results are stored before they are used, so a killed run goes through the same conversation without a second call.
"""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from pydantic import Field

from agents.calls.agent_context import LocalAgentContext
from agents.reply_schema import InvalidReply, ReplySchema, T
from agents.roles.sample_state import AgentHandover, SampleState
from agents.sources.conditions import format_conditions
from core.errors import UsageError
from core.sample import REPAIR_STRIDE, AgentTurn, ToolCall, label_turns, text_digest
from plugins.tools.simulation.service_state import SimulatedService
from plugins.tools.toolbox.tool_module import MadeCall
from plugins.tools.toolbox.tool_spec import (
    MAX_CALLS,
    ToolResult,
    ToolSpec,
    build_calls_schema,
    build_failure,
    closed_object,
    find_call_fault,
)
from plugins.tools.toolbox.toolbox import Toolbox, ToolStep
from teachers.base import CallFailed, CallKey

LAST_STEP = 'No further call is possible: answer now, as {"reply": "…"} alone, and say what could not be found out.'
NOTES_INTRO = (
    "What the user wants now, in notes, to be said in this user's own words with all these details and no others:"
)
TurnValues = dict[str, Any]
"""A turn of a transcript: `kind`, `request`, `steps` of calls with their results, `reply`, and the `thinking` before each step
and the reply."""


class UserRequest(ReplySchema):
    request: str = Field(min_length=1, max_length=2000)


class AssistantCall(ReplySchema):
    name: str = Field(min_length=1, max_length=80)
    arguments: dict[str, Any]


class CallsStep(ReplySchema):
    calls: list[AssistantCall] = Field(min_length=1, max_length=MAX_CALLS)


class ReplyStep(ReplySchema):
    reply: str = Field(min_length=1, max_length=4000)


class AssistantStep(ReplySchema):
    """Calls, or a reply to the user."""

    step: CallsStep | ReplyStep


class FinalReply(ReplySchema):
    """The reply where no further call is possible."""

    reply: str = Field(min_length=1, max_length=4000)


async def write_tool_conversation(context: LocalAgentContext, state: SampleState) -> AgentHandover:
    """The generator's hand-over: a transcript for `ToolFamily.candidate`."""
    turns: list[AgentTurn] = []
    writer = _ConversationWriter(context, state, turns)
    try:
        payload = await writer.write()
    except CallFailed as error:
        return AgentHandover("generator", "", tuple(turns), failure=str(error))
    except InvalidReply as fault:
        payload = {"tools": [], "turns": [], "fault": str(fault)}
    return AgentHandover("generator", payload, tuple(turns))


class _ConversationWriter:
    """One conversation in progress."""

    def __init__(self, context: LocalAgentContext, state: SampleState, asked: list[AgentTurn]) -> None:
        self._context = context
        self._seed = state["seed"]
        self._progress = state["progress"]
        self._asked = asked
        self._options: Any = context.plan.options
        self._toolbox: Toolbox = context.dispatcher.resources
        service = self._seed.data.get("service")
        self._service = SimulatedService(**service) if service else None
        self._tools: list[ToolSpec] = []
        self._world = ""
        self._turns: list[TurnValues] = []
        self._made: list[MadeCall] = []
        number = context.sample_number(self._seed.index)
        self._world_seed = int(text_digest(f"{context.recipe.seed}/world/{number}", length=7), 16)

    async def write(self) -> dict[str, Any]:
        """Raises InvalidReply if a teacher's replies stay invalid, or a tool's result ends the conversation."""
        await self._draw_tools()
        for kind in self._seed.data["kinds"]:
            self._turns.append({"kind": kind, "request": "", "steps": [], "reply": "", "thinking": []})
            wish = await self._ask("request", UserRequest)
            self._turns[-1]["request"] = wish.request.strip()
            await self._answer()
        return {"tools": [tool.function() for tool in self._tools], "turns": self._turns, "fault": ""}

    async def _draw_tools(self) -> None:
        """The tools and the world of this sample, as they were when the sample was started."""
        data, index = self._seed.data, self._seed.index
        if self._service:
            self._tools = [self._service.tools[name].spec for name in data["offered"]]
            return
        rng = Random(f"{self._context.recipe.seed}/tools/{self._context.sample_number(index)}")

        async def find_tools() -> str:
            tools = {tool.name: tool for tool in self._toolbox.tools}
            if unknown := [name for name in data["fitting"] if name not in tools]:
                raise UsageError(
                    f"seed {self._seed.id}: there is no tool {unknown[0]!r}, which its `tools` name; there are {', '.join(tools)}"
                )
            chosen = list(dict.fromkeys(data["fitting"] or rng.sample(list(tools), 1)))
            others = [name for name in tools if name not in chosen]
            chosen += rng.sample(others, max(0, min(len(others), data["offered"] - len(chosen))))
            first = chosen[0]
            rng.shuffle(chosen)
            return json.dumps({"needed": first, "tools": [tools[name].model_dump() for name in chosen]})

        drawn = json.loads(await self._context.remember(f"{index}/tools", find_tools))
        self._needed = str(drawn["needed"])
        self._tools = [ToolSpec.model_validate(tool) for tool in drawn["tools"]]
        self._world = await self._context.remember(
            f"{index}/world", lambda: self._toolbox.describe_world(self._world_seed)
        )

    async def _answer(self) -> None:
        """The assistant's steps of the last turn: calls with their results, then a reply."""
        turn = self._turns[-1]
        for _ in range(self._options.rounds):
            step = (await self._ask("step", AssistantStep, _step_schema(self._tools))).step
            turn["thinking"].append(self._asked[-1].reasoning)
            if isinstance(step, ReplyStep):
                turn["reply"] = step.reply.strip()
                return
            calls = [ToolCall(name=call.name, arguments=call.arguments) for call in step.calls]
            results = await self._execute(calls)
            turn["steps"].append(
                [
                    {**call.model_dump(), "result": result.content, "failed": result.failed}
                    for call, result in zip(calls, results, strict=True)
                ]
            )
        turn["reply"] = (await self._ask("step", FinalReply)).reply.strip()
        turn["thinking"].append(self._asked[-1].reasoning)

    async def _execute(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """The results of calls; one that its schema refuses is not made."""
        offered = {tool.name: tool.parameters for tool in self._tools}
        if self._service:
            return [self._service.execute(call, offered) for call in calls]
        faults = [find_call_fault(call, offered, strict=True) for call in calls]
        sound = [call for call, fault in zip(calls, faults, strict=True) if fault is None]
        step = ToolStep(str(self._next_key()), self._world_seed, tuple(self._made), sound)
        made = iter(await self._toolbox.call_tools(step, self._context.ledger) if sound else [])
        results = [next(made) if fault is None else build_failure(fault, undone=True) for fault in faults]
        if broken := next((result.broken for result in results if result.broken), ""):
            raise InvalidReply(broken)
        self._made += [MadeCall(call, result) for call, result in zip(calls, results, strict=True)]
        return results

    def _next_key(self) -> CallKey:
        return CallKey(
            sample=self._seed.index,
            seed=self._seed.digest,
            agent="generator",
            revision=self._progress.revision,
            attempt=len(self._asked) * REPAIR_STRIDE,
        )

    async def _ask(self, role: str, contract: type[T], schema: dict[str, Any] | None = None) -> T:
        """A valid reply to the prompt of `role`. Raises as `AgentContext.ask_until_valid`."""
        context, config = self._context, self._context.recipe.agents.generator
        values = {**context.plan.family.prompt_values(self._seed), **self._values(final=contract is FinalReply)}
        messages = context.plan.prompt(role).fill(values)
        if conditions := format_conditions(self._seed.conditions, leave_out=context.plan.prompt(role).placeholders):
            messages[-1] = messages[-1].model_copy(update={"content": f"{messages[-1].content}\n{conditions}"})
        if self._progress.revision:
            refused = self._progress.candidate
            shown = (
                {"draft": label_turns([turn for turn in refused.messages if turn.role != "system"])} if refused else {}
            )
            note = context.prompt("revise", {**values, **self._progress.revision_values, **shown})
            joined = f"{messages[-1].content}\n\n{note[-1].content}"
            messages[-1] = messages[-1].model_copy(update={"content": joined})
        return await context.ask_until_valid(
            self._next_key(), config, messages, contract, config.temperature, self._asked, schema
        )

    def _values(self, *, final: bool) -> Mapping[str, str]:
        tools = "\n".join(json.dumps(tool.function()["function"], ensure_ascii=False) for tool in self._tools)
        limit, turn = LAST_STEP if final else "", self._turns[-1]
        world = self._world or "nothing is known; the user asks from what the tools' descriptions say"
        wish = "" if self._service else _describe_wish(turn["kind"], self._needed)
        if self._service and not turn["request"]:
            # The user knows what the plan says, and neither the tools nor the records.
            tools, world = "(the user knows none)", self._service.domain.does
            wish = f"{NOTES_INTRO} {self._seed.data['plan'][len(self._turns) - 1]['notes']}"
        return {
            "tools": tools,
            "world": world,
            "conversation": _format_conversation(self._turns),
            "wish": wish,
            "limit": limit,
        }


def _describe_wish(kind: str, needed: str) -> str:
    """What the user's next request must be."""
    return {
        "call": f"The request needs {needed}, and other tools where that is natural. It gives every detail that the calls need.",
        "ask": f"The request is for something that {needed} does, and leaves out one detail without which it cannot be called.",
        "outside": "The request is for something that none of the tools can do, though it is near to what they do.",
    }[kind]


def _format_conversation(turns: Sequence[TurnValues]) -> str:
    """The conversation so far, a line of JSON for each message."""
    lines: list[dict[str, Any]] = []
    for turn in turns:
        lines += [{"user": turn["request"]}] if turn["request"] else []
        for step in turn["steps"]:
            lines.append({"calls": [{"name": call["name"], "arguments": call["arguments"]} for call in step]})
            lines += [{"tool": call["name"], "result": call["result"]} for call in step]
        lines += [{"assistant": turn["reply"]}] if turn["reply"] else []
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) or "(it begins with this request)"


def _step_schema(tools: Sequence[ToolSpec]) -> dict[str, Any]:
    """The JSON schema of a step: calls of the offered tools only."""
    calls = closed_object({"calls": build_calls_schema(tools, least=1)})
    reply = closed_object({"reply": {"type": "string", "minLength": 1, "maxLength": 4000}})
    return closed_object({"step": {"anyOf": [calls, reply]}})
