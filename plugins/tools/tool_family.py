"""The family `tool_calls`: conversations with JSON-schema tools, written step by step, whose calls are executed.

With a simulated service, each seed plans its turns, and the checks compare the state after each. With a recipe's own tools, a
seed says what the user wants and which kind each turn is. Knows no teacher.
"""

import json
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import Field

from agents.checks import Options
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import InvalidReply, ReplySchema
from core.config.recipe import Recipe
from core.errors import RecipeProblem
from core.sample import Candidate, Message, Seed, ToolCall
from plugins.tools.checks.conversation_checks import tool_arguments_check, tool_use_check
from plugins.tools.checks.reply_checks import tool_result_check
from plugins.tools.config import ToolSourceConfig
from plugins.tools.simulation.conversation_plan import draw_plan, spell_day
from plugins.tools.simulation.service_state import SimulatedService
from plugins.tools.simulation.services import DATA, read_services
from plugins.tools.toolbox.toolbox import Toolbox, list_tool_problems, open_toolbox

TOOL_PROMPTS = Path(__file__).parent / "prompts" / "tool_calls"
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
_USERS = tomllib.loads((DATA / "users.toml").read_text(encoding="utf-8"))


class ToolOptions(Options):
    turns: tuple[Annotated[int, Field(ge=1, le=10)], ...] = Field((1, 2), min_length=1)
    """Of the user, one of these at random."""
    tools: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field((2, 3, 4), min_length=1)
    """Offered, one of these at random, more if needed."""
    rounds: int = Field(4, ge=1, le=16)
    """Most steps with calls in a turn."""
    written_out: bool = True
    """Put tools into the system message in Hermes' form, not only into the column `tools`."""


class OwnToolOptions(ToolOptions):
    none: float = Field(0.15, ge=0, le=1)
    """Share of turns without a call: an argument is missing, or no tool fits."""


class TranscriptCall(ReplySchema):
    name: str
    arguments: dict[str, Any]
    result: str
    failed: bool = False


class TranscriptTurn(ReplySchema):
    kind: str
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
    """What conversations with all tools share."""

    name = "tool_calls"
    prompts = TOOL_PROMPTS
    writes = ("request", "step")
    seeded_by = ("path", "itself")
    converses = True
    own_process_reason = "tools are executed by the run's own process"
    fields = ("tools", "turns")
    checks = (tool_use_check, tool_arguments_check, tool_result_check)
    # Calls are JSON whose names repeat, and a plain no is a right answer, so no filter for prose. One question back can answer
    # many requests.
    defaults: ClassVar[Mapping[str, Any]] = {
        "collapse": {"kind": "json"},
        "agents": {"generator": {"max_tokens": 1200}},
        "verifiers": [
            {"type": "tool_schema"},
            {"type": "tool_use"},
            {"type": "tool_arguments"},
            {"type": "tool_result"},
        ],
        "filters": [{"type": "exact"}, {"type": "minhash"}],
    }

    async def write_draft(self, context: Any, state: Any) -> Any:
        from plugins.tools.tool_conversation import write_tool_conversation

        return await write_tool_conversation(context, state)

    def draft_calls(self, options: ToolOptions) -> int:
        return max(options.turns) * (2 + options.rounds)

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ToolTranscript

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        """The names that are filled in while the conversation is made."""
        return dict.fromkeys(("tools", "world", "conversation", "wish", "limit"), "")

    def reviewed_messages(self, candidate: Candidate) -> Sequence[Message]:
        """Without the system message: a critic of the talk needs no schemas."""
        return [message for message in candidate.messages if message.role != "system"]

    def candidate(self, seed: Seed, draft: ToolTranscript) -> Candidate:
        if draft.fault:
            raise InvalidReply(draft.fault)
        system = " ".join(filter(None, (seed.data["intro"], seed.data["rules"])))
        if seed.data["written_out"]:
            tools = (json.dumps(tool, ensure_ascii=False) for tool in draft.tools)
            system = HERMES.format(intro=system, tools="\n".join(tools))
        messages, turns = [Message(role="system", content=system)], []
        for turn in draft.turns:
            messages.append(Message(role="user", content=turn.request))
            thoughts = [thought.strip() or None for thought in turn.thinking] or [None] * (len(turn.steps) + 1)
            for step, thought in zip(turn.steps, thoughts, strict=False):
                calls = tuple(ToolCall(name=call.name, arguments=call.arguments) for call in step)
                messages.append(Message(role="assistant", content="", tool_calls=calls, reasoning=thought))
                messages += [Message(role="tool", name=call.name, content=call.result) for call in step]
            messages.append(Message(role="assistant", content=turn.reply, reasoning=thoughts[-1]))
            made = [call.model_dump(exclude={"failed"}) for step in turn.steps for call in step]
            turns.append({"request": turn.request, "calls": made, "reply": turn.reply})
        return Candidate(messages=messages, fields={"tools": draft.tools, "turns": turns})


class SimulatedToolsFamily(ToolFamily):
    """Conversations with the generated tools of a simulated service."""

    options = ToolOptions

    def for_sections(self, names: Collection[str]) -> RecipeFamily:
        """With `[[tools]]`, conversations with those."""
        return OWN_TOOLS if "tools" in names else self

    def rows(self, options: ToolOptions, seed: int) -> Sequence[Mapping[str, Any]]:
        """Each person at each service, in an order that depends on `seed`. Few, since each row is drawn once before a run."""
        rows = [
            {"task": person, "domain": domain}
            for domain in sorted(read_services()["domains"])
            for person in _USERS["people"]
        ]
        return Random(f"{seed}/tasks").sample(rows, len(rows))

    def condition(self, row: Mapping[str, Any], options: ToolOptions, rng: Random) -> dict[str, Any]:
        domains = read_services()["domains"]
        name = require_text(row, "domain", rng.choice(sorted(domains)))
        if name not in domains:
            raise UnusableSeedRow(f"'domain' with one of {', '.join(domains)}, not {name!r}")
        seed = rng.randrange(1 << 32)
        drawn = SimulatedService(name, seed)
        plan = draw_plan(drawn, rng, rng.choice(options.turns), rng.choice(options.tools))
        today = f"Today is {drawn.today:%A}, {spell_day(drawn.today.isoformat())}."
        return {
            "task": f"{require_text(row, 'task')}, {rng.choice(_USERS['manners'])}",
            "category": plan.turns[0].kind,
            "service": {"domain": name, "seed": seed},
            "today": drawn.today.isoformat(),
            "rules": " ".join(filter(None, (f"You work for {drawn.domain.does}.", today, plan.rules))),
            "offered": plan.offered,
            "kinds": [turn.kind for turn in plan.turns],
            "plan": [turn.model_dump(mode="json") for turn in plan.turns],
            "intro": rng.choice(_USERS["intros"]),
            "written_out": options.written_out,
        }


class OwnToolsFamily(ToolFamily):
    """Conversations with the tools of a recipe: its modules and servers."""

    options = OwnToolOptions

    def list_problems(self, recipe: Recipe, folder: Path) -> Iterable[RecipeProblem]:
        return list_tool_problems(recipe.section_list(ToolSourceConfig), folder)

    def open_resources(self, recipe: Recipe, folder: Path) -> AbstractAsyncContextManager[Toolbox]:
        return open_toolbox(recipe.section_list(ToolSourceConfig), folder)

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
            "rules": "",
            "intro": rng.choice(_USERS["intros"]),
            "written_out": options.written_out,
        }


OWN_TOOLS = OwnToolsFamily()
