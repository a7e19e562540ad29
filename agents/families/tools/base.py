"""What a simulated tool is: a pure function of a small world and arguments, with what planning and checking need to know.

Knows no tool of its own, no teacher and no conversation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import Any, NamedTuple

from agents.checks.schema import value_fault, without_notes

World = Mapping[str, Any]
"""Plain JSON by section, which a tool reads and never changes in place; `today` is always there."""
Arguments = Mapping[str, Any]
Draw = Callable[[World, Random], dict[str, Any]]


class ToolError(Exception):
    """What a tool answers in the place of a result; the text is for the assistant to pass on."""


class Ran(NamedTuple):
    """A tool's answer, and the world after it."""

    result: dict[str, Any]
    world: World


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    need: str
    """What a user wants who needs it, as the end of `the user wants`."""
    parameters: dict[str, Any]
    """Their JSON schema; `x-evidence` has the words by which people tell a value."""
    run: Callable[[World, Arguments], Ran]
    """Raises ToolError."""
    draw: Draw
    """Arguments that lead to a result."""
    tells: tuple[str, ...]
    """Fields of the result that a reply must tell, where they are there."""
    sections: tuple[str, ...] = ()
    """What of the world it reads."""
    fail: Draw | None = None
    """Arguments that lead to an error."""
    asked: Mapping[str, tuple[str, ...]] | None = None
    """Required parameters that a user may forget, with words of the question for them."""
    acts: bool = False
    """Whether it changes the world."""
    label: str | None = None
    """The field of the result that tells two results of one turn apart."""

    def function(self) -> dict[str, Any]:
        """As OpenAI's API has it, without notes."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": without_notes(self.parameters),
        }
        return {"type": "function", "function": function}


def run_tool(world: World, offered: Mapping[str, Tool], name: str, arguments: Arguments) -> Ran:
    """Call a tool as a server would: what is unknown, does not fit the schema or cannot be done is an `error`."""
    tool = offered.get(name)
    if tool is None:
        return Ran({"error": f"there is no tool {name!r}"}, world)
    if fault := value_fault(arguments, tool.parameters):
        return Ran({"error": f"bad arguments: {fault}"}, world)
    try:
        return tool.run(world, arguments)
    except ToolError as error:
        return Ran({"error": str(error)}, world)


def parameters(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A closed object schema."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def words(values: Mapping[Any, tuple[str, ...]], about: str) -> dict[str, Any]:
    """A string enum whose values are told by these words, or by themselves."""
    return {
        "type": "string",
        "enum": list(values),
        "description": about,
        "x-evidence": {value: [value, *some] for value, some in values.items()},
    }


def text(about: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": 80, "description": about}


def day(about: str) -> dict[str, Any]:
    return {"type": "string", "format": "date", "description": f"{about}, as YYYY-MM-DD"}


def clock(about: str) -> dict[str, Any]:
    return {"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d$", "description": f"{about}, as HH:MM"}


def integer(about: str, least: int, most: int, **more: Any) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most, "description": about, **more}


def neat(value: float) -> int | float:
    """Two decimals at the most, half a cent upwards, and none where there are none to tell."""
    rounded = Decimal(str(value)).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return int(rounded) if rounded == int(rounded) else float(rounded)
