"""The family `tool_calls`: conversations with JSON-schema tools whose calls are executed.

With the simulated tools, each seed plans its conversation: the offered tools, the calls with their results, and the turns
without a call. The generator writes the conversation at once, and its calls are executed again. With a recipe's own tools, a
seed says what the user wants and which kind each turn is; `tool_conversation.py` writes it step by step. Knows no teacher.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from agents.checks import Options
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import InvalidReply, ReplySchema
from core.config.recipe import Recipe
from core.errors import RecipeProblem
from core.sample import Candidate, Message, Seed, ToolCall
from plugins.tools.checks.conversation_checks import tool_arguments_check, tool_use_check
from plugins.tools.checks.reply_checks import tool_result_check
from plugins.tools.config import ToolSourceConfig
from plugins.tools.simulation.conversation_plan import (
    TurnKind,
    describe_turn,
    draw_plan,
    dump_json,
    parse_planned_turn,
)
from plugins.tools.simulation.simulated_tools import SIMULATED_TOOLS, WorldState, run_tool
from plugins.tools.simulation.simulated_world import (
    CALENDAR_DAYS,
    DOMAINS_BY_NAME,
    EVERYTHING,
    Domain,
    add_days,
    read_data,
)
from plugins.tools.toolbox.tool_spec import MAX_CALLS, build_calls_schema, closed_object
from plugins.tools.toolbox.toolbox import Toolbox, list_tool_problems, open_toolbox

TOOL_PROMPTS = Path(__file__).parent / "prompts"
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
DATE_IN_PLAN = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_USERS = read_data("users.toml")


class ToolOptions(Options):
    """What both engines take."""

    turns: tuple[Annotated[int, Field(ge=1, le=4)], ...] = Field((1, 2), min_length=1)
    """Of the user, one of these at random."""
    tools: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field((2, 3, 4), min_length=1)
    """Offered, one of these at random, more if needed."""
    none: float = Field(0.15, ge=0, le=1)
    """Share of turns without a call: an argument is missing, or no tool fits."""
    written_out: bool = True
    """Put tools into the system message in Hermes' form, not only into the column `tools`."""


class PlannedToolOptions(ToolOptions):
    errors: float = Field(0.1, ge=0, le=1)
    """Share whose call fails."""
    chains: float = Field(0.15, ge=0, le=1)
    """Share with two calls, the second on the first's result."""
    parallel: float = Field(0.1, ge=0, le=1)
    """Share with two calls of one tool."""

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


class OwnToolOptions(ToolOptions):
    rounds: int = Field(4, ge=1, le=16)
    """Most steps with calls in a turn."""


class DraftCall(ReplySchema):
    name: str = Field(min_length=1, max_length=80)
    arguments: dict[str, Any]


class DraftTurn(ReplySchema):
    request: str = Field(min_length=1, max_length=2000)
    calls: list[DraftCall] = Field(max_length=MAX_CALLS)
    reply: str = Field(min_length=1, max_length=2000)


class ToolDraft(ReplySchema):
    turns: list[DraftTurn] = Field(min_length=1)


class TranscriptCall(ReplySchema):
    name: str
    arguments: dict[str, Any]
    result: Any
    """Text, or the JSON of a simulated tool."""
    failed: bool = False


class TranscriptTurn(ReplySchema):
    kind: TurnKind
    request: str
    steps: list[list[TranscriptCall]]
    reply: str
    thinking: list[str] = Field([])
    """Before each step and the reply, if any; the writer of the request has none that a student may read."""


class ToolTranscript(ReplySchema):
    """A conversation as it went, with executed calls."""

    tools: list[dict[str, Any]]
    turns: list[TranscriptTurn]
    fault: str = ""
    """Why it ended early."""


class ToolFamily(RecipeFamily):
    """What both engines share."""

    name = "tool_calls"
    fields = ("tools", "turns")
    checks = (tool_use_check, tool_arguments_check, tool_result_check)
    # Calls are JSON whose names repeat, and a plain no is a right answer, so no filter for prose. One question back can answer
    # many requests.
    defaults: ClassVar[Mapping[str, Any]] = {
        "collapse": {"kind": "json"},
        "agents": {"generator": {"max_tokens": 1200, "examples": 3}},
        "verifiers": [
            {"type": "tool_schema"},
            {"type": "tool_use"},
            {"type": "tool_arguments"},
            {"type": "tool_result"},
        ],
        "filters": [{"type": "exact"}, {"type": "minhash"}],
    }

    def _build_candidate(self, seed: Seed, transcript: ToolTranscript, more: str = "") -> Candidate:
        """The conversation of a transcript; `more` follows the intro of its system message."""
        system = f"{seed.data['intro']}{more}"
        if seed.data["written_out"]:
            system = HERMES.format(intro=system, tools="\n".join(map(dump_json, transcript.tools)))
        messages, turns = [Message(role="system", content=system)], []
        for turn in transcript.turns:
            messages.append(Message(role="user", content=turn.request))
            thoughts = [thought.strip() or None for thought in turn.thinking] or [None] * (len(turn.steps) + 1)
            for step, thought in zip(turn.steps, thoughts, strict=False):
                calls = tuple(ToolCall(name=call.name, arguments=call.arguments) for call in step)
                messages.append(Message(role="assistant", content="", tool_calls=calls, reasoning=thought))
                for call in step:
                    shown = call.result if isinstance(call.result, str) else dump_json(call.result)
                    messages.append(Message(role="tool", name=call.name, content=shown))
            messages.append(Message(role="assistant", content=turn.reply, reasoning=thoughts[-1]))
            made = [call.model_dump(exclude={"failed"}) for step in turn.steps for call in step]
            turns.append({"request": turn.request, "calls": made, "reply": turn.reply})
        return Candidate(messages=messages, fields={"tools": transcript.tools, "turns": turns})


class ToolCallsFamily(ToolFamily):
    """Conversations with the simulated tools."""

    prompts = TOOL_PROMPTS / "tool_calls"
    options = PlannedToolOptions

    def for_sections(self, names: Collection[str]) -> RecipeFamily:
        """With `[[tools]]`, the engine whose calls are executed by them."""
        return OWN_TOOLS if "tools" in names else self

    def condition(self, row: Mapping[str, Any], options: PlannedToolOptions, rng: Random) -> dict[str, Any]:
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
            "intro": rng.choice(_USERS["intros"]),
            "written_out": options.written_out,
        }

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ToolDraft

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        """The reply's schema with the seed's number of turns, and with calls of the offered tools only."""
        count = len(seed.data["wishes"])
        calls = build_calls_schema([SIMULATED_TOOLS[name] for name in seed.data["offered"]])
        texts = {"type": "string", "minLength": 1, "maxLength": 2000}
        turn = closed_object({"request": texts, "calls": calls, "reply": texts})
        return closed_object({"turns": {"type": "array", "items": turn, "minItems": count, "maxItems": count}})

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
        data = seed.data
        if len(draft.turns) != len(data["wishes"]):
            raise InvalidReply(f"turns: {len(draft.turns)}, not the {len(data['wishes'])} of the plan")
        world: WorldState = data["world"]
        turns = []
        for turn, wish in zip(draft.turns, data["wishes"], strict=True):
            made, world = _execute_calls(data["offered"], turn.calls, world)
            steps = [[call] for call in made] if wish["kind"] == "chain" else [made] if made else []
            turns.append(
                TranscriptTurn(kind=wish["kind"], request=turn.request.strip(), steps=steps, reply=turn.reply.strip())
            )
        tools = [SIMULATED_TOOLS[name].function() for name in data["offered"]]
        today = f" Today is {_long_date(data['world']['today'])}."
        return self._build_candidate(seed, ToolTranscript(tools=tools, turns=turns), today)


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


def _execute_calls(
    offered: Sequence[str], calls: Sequence[DraftCall], world: WorldState
) -> tuple[list[TranscriptCall], WorldState]:
    """The calls of a turn with what they really return, and the world after them.

    Raises InvalidReply for numbers that JSON does not have.
    """
    tools = {name: SIMULATED_TOOLS[name] for name in offered}
    made = []
    for call in calls:
        try:
            arguments = json.loads(json.dumps(call.arguments, allow_nan=False))
        except ValueError:
            raise InvalidReply("calls: NaN and Infinity are no JSON") from None
        result, world = run_tool(world, tools, call.name, arguments)
        made.append(TranscriptCall(name=call.name, arguments=arguments, result=result))
    return made, world


class OwnToolsFamily(ToolFamily):
    """Conversations with the tools of a recipe: its modules and servers."""

    prompts = TOOL_PROMPTS / "user_tools"
    options = OwnToolOptions
    writes = ("request", "step")
    seeded_by = ("path", "itself")
    converses = True
    own_process_reason = "tools are executed by the run's own process"

    def list_problems(self, recipe: Recipe, folder: Path) -> Iterable[RecipeProblem]:
        return list_tool_problems(recipe.section_list(ToolSourceConfig), folder)

    def open_resources(self, recipe: Recipe, folder: Path) -> AbstractAsyncContextManager[Toolbox]:
        return open_toolbox(recipe.section_list(ToolSourceConfig), folder)

    async def write_draft(self, context: Any, state: Any) -> Any:
        from plugins.tools.tool_conversation import write_tool_conversation

        return await write_tool_conversation(context, state)

    def draft_calls(self, options: OwnToolOptions) -> int:
        return max(options.turns) * (2 + options.rounds)

    def rows(self, options: OwnToolOptions, seed: int) -> Sequence[Mapping[str, Any]]:
        """Each person in each situation, in an order that depends on `seed`; what they want follows from the drawn tools."""
        tasks = [f"{person}, {situation}" for person in _USERS["people"] for situation in _USERS["situations"]]
        return [{"task": task} for task in Random(f"{seed}/tasks").sample(tasks, len(tasks))]

    def condition(self, row: Mapping[str, Any], options: OwnToolOptions, rng: Random) -> dict[str, Any]:
        fitting = row.get("tools", [])
        if not isinstance(fitting, list) or not all(isinstance(name, str) for name in fitting):
            raise UnusableSeedRow("'tools' with a list of names of tools, or no such key")
        kinds = rng.choices(
            ["call", "ask", "outside"],
            [1 - options.none, options.none / 2, options.none / 2],
            k=rng.choice(options.turns),
        )
        return {
            "task": require_text(row, "task"),
            "category": kinds[0],
            "fitting": fitting,
            "offered": rng.choice(options.tools),
            "kinds": kinds,
            "intro": rng.choice(_USERS["intros"]),
            "written_out": options.written_out,
        }

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ToolTranscript

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        """The names that are filled in while the conversation is made."""
        return dict.fromkeys(("tools", "world", "conversation", "wish", "limit"), "")

    def candidate(self, seed: Seed, draft: ToolTranscript) -> Candidate:
        if draft.fault:
            raise InvalidReply(draft.fault)
        return self._build_candidate(seed, draft)


OWN_TOOLS = OwnToolsFamily()
