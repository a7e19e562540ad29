"""A simulated tool: a pure function of a small world and arguments, with the data for planning and checking.

Knows no particular tool, no teacher and no conversation.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import Any, NamedTuple

from agents.checks.json_schema import find_schema_fault, remove_notes

WorldState = Mapping[str, Any]
"""Plain JSON by section; a tool never changes it in place. `today` is always present."""
ToolArguments = Mapping[str, Any]
ArgumentDrawer = Callable[[WorldState, Random], dict[str, Any]]


class ToolError(Exception):
    """A tool's error instead of a result; the assistant passes the text on."""


class ToolOutcome(NamedTuple):
    """A tool's answer, and the world after it."""

    result: dict[str, Any]
    world: WorldState


@dataclass(frozen=True)
class SimulatedTool:
    name: str
    description: str
    need: str
    """The wish of a user who needs the tool, as the end of `the user wants`."""
    parameters: dict[str, Any]
    """The JSON schema of its arguments; `x-evidence` contains the words that people use for a value."""
    run: Callable[[WorldState, ToolArguments], ToolOutcome]
    """Raises ToolError."""
    draw: ArgumentDrawer
    """Arguments that lead to a result."""
    tells: tuple[str, ...]
    """Fields of the result that a reply must state if they are present."""
    asks: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """For some of `tells`, the words with which a request asks for the field. A reply to a request that asks for some of them may
    leave the others out."""
    sections: tuple[str, ...] = ()
    """The sections of the world that it reads."""
    fail: ArgumentDrawer | None = None
    """Arguments that lead to an error."""
    asked: Mapping[str, tuple[str, ...]] | None = None
    """Required parameters that a user may forget, with words for asking for them."""
    acts: bool = False
    """Whether it changes the world."""
    purpose: Callable[[WorldState, ToolArguments, Random], str] | None = None
    """What a call with these arguments is for, in the life of the world's domain; empty where nothing fits."""
    plausible: Callable[[WorldState, ToolArguments], bool] | None = None
    """Whether people of the world's domain ask this; None if they may ask all that the tool can do."""
    current: bool = False
    """Whether its result holds for today, so that a reply may say so."""
    label: str | None = None
    """The field of the result that distinguishes two results of one turn."""

    def function(self) -> dict[str, Any]:
        """The tool in the form of OpenAI's API, without notes."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": remove_notes(self.parameters),
        }
        return {"type": "function", "function": function}


def run_tool(
    world: WorldState, offered: Mapping[str, SimulatedTool], name: str, arguments: ToolArguments
) -> ToolOutcome:
    """Call a tool like a server: an unknown tool, invalid arguments and failures give an `error`."""
    tool = offered.get(name)
    if tool is None:
        return ToolOutcome({"error": f"there is no tool {name!r}"}, world)
    if fault := find_schema_fault(arguments, tool.parameters):
        return ToolOutcome({"error": f"bad arguments: {fault}"}, world)
    try:
        return tool.run(world, arguments)
    except ToolError as error:
        return ToolOutcome({"error": str(error)}, world)


def object_schema(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A closed object schema."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def word_enum_schema(values: Mapping[Any, tuple[str, ...]], about: str) -> dict[str, Any]:
    """A string enum whose values are expressed by these words, or by themselves."""
    return {
        "type": "string",
        "enum": list(values),
        "description": about,
        "x-evidence": {value: [value, *some] for value, some in values.items()},
    }


def text_schema(about: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": 80, "description": about}


def date_schema(about: str) -> dict[str, Any]:
    return {"type": "string", "format": "date", "description": f"{about}, as YYYY-MM-DD"}


def time_schema(about: str) -> dict[str, Any]:
    return {"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d$", "description": f"{about}, as HH:MM"}


def integer_schema(about: str, least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most, "description": about}


def round_amount(value: float) -> int | float:
    """Rounded to two decimals, half a cent up; an integer if the decimals are zero."""
    rounded = Decimal(str(value)).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return int(rounded) if rounded == int(rounded) else float(rounded)
