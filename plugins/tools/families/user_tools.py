"""`tool_calls` with the user's own tools: conversations whose calls are executed by modules and servers of the recipe.

A seed says what the user wants and which kind each turn is; tools are drawn when the sample is made. Knows no teacher.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from agents.checks import Options
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import InvalidReply, ReplySchema
from core.config.recipe import Recipe
from core.errors import RecipeProblem
from core.sample import Candidate, Message, Seed, ToolCall
from plugins.tools.checks.user_tool_checks import (
    user_tool_arguments_check,
    user_tool_result_check,
    user_tool_use_check,
)
from plugins.tools.config import ToolSourceConfig
from plugins.tools.families.conversation_form import HERMES, INTROS, TOOL_DEFAULTS, TOOL_PROMPTS
from plugins.tools.toolbox.toolbox import Toolbox, list_tool_problems, open_toolbox

PEOPLE = (
    "a student", "a retired teacher", "a shop owner", "a nurse", "a software tester", "a farmer", "a journalist",
    "a parent of three", "a translator", "a bus driver", "an office manager", "a cook", "a researcher", "an electrician",
    "a volunteer", "a musician", "a trainee", "a designer", "a landlord", "a team leader",
)  # fmt: skip
SITUATIONS = (
    "who needs one thing and nothing else", "who gives every detail at once", "who is in a hurry", "who does this every week",
    "who does this for the first time", "who asks for a friend", "who compares two things", "who first says why it is needed",
    "who acts on behalf of a team", "who had trouble with this before", "who checks a fact before acting on it",
    "who corrects what was done yesterday", "who wants to be quite sure", "who prepares for tomorrow",
    "who takes over from a colleague", "who looks for the cheapest way", "who answers a question of somebody else",
    "who plans for several people",
)  # fmt: skip
"""Users of a recipe without seeds, crossed; what they want follows from the drawn tools."""


class UserToolOptions(Options):
    turns: tuple[Annotated[int, Field(ge=1, le=4)], ...] = Field((1, 2), min_length=1)
    """Number of user turns of a conversation: one of these at random."""
    tools: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field((2, 3, 4), min_length=1)
    """Number of offered tools: one of these at random; fewer if there are not that many, more if a seed names more."""
    none: float = Field(0.15, ge=0, le=1)
    """Share of the turns without a call: in half of them a detail is missing, in half no tool fits."""
    rounds: int = Field(4, ge=1, le=16)
    """Most steps with calls in a turn; then the assistant must reply."""
    written_out: bool = True
    """Whether the system message contains the tools in Hermes' form, and the dataset has no column `tools`. If false, they are
    only in that column, for chat templates that render it."""


class TranscriptCall(ReplySchema):
    name: str
    arguments: dict[str, Any]
    result: str
    failed: bool


class TranscriptTurn(ReplySchema):
    kind: Literal["call", "ask", "outside"]
    request: str
    steps: list[list[TranscriptCall]]
    reply: str
    thinking: list[str]
    """Before each step and the reply; the writer of the request has none that a student may read."""


class ToolTranscript(ReplySchema):
    """A conversation as it went, with executed calls."""

    tools: list[dict[str, Any]]
    turns: list[TranscriptTurn]
    fault: str = ""
    """Why it ended early."""


class UserToolsFamily(RecipeFamily):
    name = "tool_calls"
    prompts = TOOL_PROMPTS / "user_tools"
    fields = ("tools", "turns")
    options = UserToolOptions
    writes = ("request", "step")
    checks = (user_tool_use_check, user_tool_arguments_check, user_tool_result_check)
    seeded_by = ("path", "itself")
    defaults: ClassVar[Mapping[str, Any]] = TOOL_DEFAULTS
    converses = True
    own_process_reason = "tools are executed by the run's own process"

    def list_problems(self, recipe: Recipe, folder: Path) -> Iterable[RecipeProblem]:
        return list_tool_problems(recipe.section_list(ToolSourceConfig), folder)

    def open_resources(self, recipe: Recipe, folder: Path) -> AbstractAsyncContextManager[Toolbox]:
        return open_toolbox(recipe.section_list(ToolSourceConfig), folder)

    async def write_draft(self, context: Any, state: Any) -> Any:
        from plugins.tools.tool_conversation import write_tool_conversation

        return await write_tool_conversation(context, state)

    def draft_calls(self, options: UserToolOptions) -> int:
        return max(options.turns) * (2 + options.rounds)

    def rows(self, options: UserToolOptions, seed: int) -> Sequence[Mapping[str, Any]]:
        """Each person in each situation, in an order that depends on `seed`."""
        tasks = [f"{person}, {situation}" for person in PEOPLE for situation in SITUATIONS]
        return [{"task": task} for task in Random(f"{seed}/tasks").sample(tasks, len(tasks))]

    def condition(self, row: Mapping[str, Any], options: UserToolOptions, rng: Random) -> dict[str, Any]:
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
            "intro": rng.choice(INTROS),
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
        system = seed.data["intro"]
        if seed.data["written_out"]:
            signatures = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in draft.tools)
            system = HERMES.format(intro=system, tools=signatures)
        messages = [Message(role="system", content=system)]
        turns = []
        for turn in draft.turns:
            messages.append(Message(role="user", content=turn.request))
            *thoughts, last = [thought.strip() or None for thought in turn.thinking]
            for step, thought in zip(turn.steps, thoughts, strict=True):
                calls = tuple(ToolCall(name=call.name, arguments=call.arguments) for call in step)
                messages.append(Message(role="assistant", content="", tool_calls=calls, reasoning=thought))
                messages += [Message(role="tool", name=call.name, content=call.result) for call in step]
            messages.append(Message(role="assistant", content=turn.reply, reasoning=last))
            shown = [call.model_dump(exclude={"failed"}) for step in turn.steps for call in step]
            turns.append({"request": turn.request, "calls": shown, "reply": turn.reply})
        return Candidate(messages=messages, fields={"tools": draft.tools, "turns": turns})
