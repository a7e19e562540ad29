"""A tool as its source describes it, a call's result, and their bounds. Knows no source.

Names, descriptions, schemas and results come from an untrusted program or server: they are text for a teacher,
bounded, without hidden characters, and never a template or code.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from agents.checks.json_schema import InvalidSchema, JsonSchema, find_schema_fault, remove_notes, validate_schema
from core.sample import FrozenModel, ToolCall
from core.secrets import redact_text

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""As OpenAI's API allows, not beginning with a digit."""
MAX_TOOLS = 128
"""Of one source; OpenAI's API takes that number."""
MAX_DESCRIPTION_CHARACTERS = 2_000
MAX_RESULT_CHARACTERS = 8_000
"""A longer result is cut: it is read by a teacher at each further step, and becomes training data."""
CHAT_MARKUP = re.compile(r"<\|[^<>\n]{0,40}\|>|</?(?:tools?|tool_call|tool_response|im_start|im_end|s)>", re.IGNORECASE)
"""What chat templates write between turns: in a description it could end its turn."""
ERROR_PREFIX = "error: "
MAX_CALLS = 4
"""At once."""


class UnusableTools(Exception):
    """A source whose tools cannot be used; the text is one sentence."""


class ToolSpec(FrozenModel):
    """A tool that an assistant may call."""

    name: str
    description: str
    parameters: dict[str, Any]
    """The JSON schema of its arguments."""
    repeatable: bool = False
    """Whether its source says that a second equal call changes nothing."""

    def function(self) -> dict[str, Any]:
        """The tool in the form of OpenAI's API, as chat templates and trainers take it."""
        parameters = remove_notes(self.parameters)
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }


def build_calls_schema(tools: Iterable[ToolSpec], least: int = 0) -> dict[str, Any]:
    """The JSON schema of `least` to `MAX_CALLS` calls of these tools."""
    calls = []
    for tool in tools:
        parameters = remove_notes(tool.parameters)
        # Definitions inside another schema: their references start from the top.
        arguments = {"type": "object"} if "$defs" in parameters else parameters
        calls.append(closed_object({"name": {"const": tool.name, "type": "string"}, "arguments": arguments}))
    few = {"minItems": least} if least else {}
    return {"type": "array", "items": {"anyOf": calls}, **few, "maxItems": MAX_CALLS}


def closed_object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """The JSON schema of an object with these properties and no others, all of them required by default."""
    required = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def read_parameter_schemas(tools: Any) -> dict[str, JsonSchema]:
    """The schemas of the parameters of `tools`, by name.

    Raises:
        ValueError: if `tools` are not functions with different names.
    """
    schemas: dict[str, JsonSchema] = {}
    for tool in tools if isinstance(tools, list) else [tools]:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or function["name"] in schemas:
            raise ValueError(f"each tool must be a function with a name of its own, not {str(tool)[:80]!r}")
        schemas[function["name"]] = function.get("parameters") or {"type": "object", "properties": {}}
    return schemas


def find_call_fault(call: ToolCall, offered: Mapping[str, JsonSchema], *, strict: bool) -> str | None:
    """Why a call cannot be made, in a sentence.

    Raises:
        ValueError: where the tool's own schema cannot be used.
    """
    if call.name not in offered:
        return f"there is no tool {call.name[:80]!r}; there are {', '.join(offered) or 'none'}"
    try:
        fault = find_schema_fault(call.arguments, offered[call.name], strict=strict)
    except InvalidSchema as error:
        raise ValueError(f"tool {call.name}: {error}") from None
    return f"the arguments of {call.name} do not fit its schema: {fault}" if fault else None


class ToolResult(FrozenModel):
    """The result of a call."""

    text: str
    """JSON or plain text, bounded; of a failed call its message."""
    failed: bool = False
    undone: bool = False
    """Whether the call has no effect on the tools' state: it was stopped, or never made."""
    broken: str = Field("", exclude_if=lambda text: not text)
    """Why the conversation must end, in one sentence; its sample is lost."""

    @property
    def content(self) -> str:
        """As the tool's turn of a conversation."""
        return f"{ERROR_PREFIX}{self.text}" if self.failed else self.text


def build_result(text: str, *, failed: bool = False, undone: bool = False) -> ToolResult:
    return ToolResult(text=clean_text(text, MAX_RESULT_CHARACTERS), failed=failed, undone=undone)


def build_failure(text: str, *, undone: bool = False) -> ToolResult:
    return build_result(text, failed=True, undone=undone)


def clean_text(text: str, length: int) -> str:
    """`text` without keys, hidden characters and chat markup, cut with a note."""
    text = redact_text(text.encode("utf-8", "replace").decode())
    text = CHAT_MARKUP.sub(" ", "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C")).strip()
    return text if len(text) <= length else f"{text[:length]}… ({len(text) - length:,} characters more)"


def build_tool_specs(found: Sequence[Mapping[str, Any]], only: Collection[str], source: str) -> list[ToolSpec]:
    """The tools of a source from their plain descriptions (`name`, `description`, `parameters`), those of `only` if it has names.

    Raises:
        UnusableTools: naming the tool and what is wrong with it.
    """
    if len(found) > MAX_TOOLS:
        raise UnusableTools(f"{source}: has {len(found):,} tools; at most {MAX_TOOLS} can be used")
    names = [str(tool.get("name"))[:80] for tool in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UnusableTools(f"{source}: has two tools with the name {twice[0]!r}; rename one")
    if unknown := sorted(set(only) - set(names)):
        raise UnusableTools(
            f"{source}: has no tool {unknown[0]!r}, which `only` names; it has {', '.join(names) or 'none'}"
        )
    wanted = [tool for tool in found if not only or tool.get("name") in only]
    if not wanted:
        raise UnusableTools(f"{source}: has no tool")
    return [_build_tool_spec(tool, source) for tool in wanted]


def _build_tool_spec(tool: Mapping[str, Any], source: str) -> ToolSpec:
    name, description, parameters = tool.get("name"), tool.get("description"), tool.get("parameters")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UnusableTools(
            f"{source}: a tool's name has 1 to 64 letters, digits, `_` and `-`, not {redact_text(str(name))[:80]!r}; leave it "
            "out with `only`"
        )
    where = f"{source}: {name}"
    if not isinstance(description, str) or not description.strip():
        raise UnusableTools(f"{where} has no description, so no teacher knows what it is for")
    if len(description) > MAX_DESCRIPTION_CHARACTERS:
        raise UnusableTools(
            f"{where} has a description of {len(description):,} characters; at most {MAX_DESCRIPTION_CHARACTERS:,} are allowed"
        )
    if not isinstance(parameters, Mapping):
        raise UnusableTools(f"{where} has no JSON schema of its arguments")
    # Older drafts differ in keywords that are refused one by one.
    parameters = {"type": "object", "properties": {}, **{key: v for key, v in parameters.items() if key != "$schema"}}
    try:
        validate_schema(parameters)
    except InvalidSchema as error:
        raise UnusableTools(f"{where} has a schema that cannot be used: {error}") from None
    if parameters["type"] != "object":
        raise UnusableTools(f"{where} has parameters of type {str(parameters['type'])[:40]!r}; they must be an object")
    return ToolSpec(
        name=name,
        description=clean_text(description, MAX_DESCRIPTION_CHARACTERS),
        parameters=_clean_notes(parameters),
        repeatable=tool.get("repeatable") is True,
    )


def _clean_notes(value: Any) -> Any:
    """A schema whose texts are as clean as a description."""
    if isinstance(value, dict):
        return {key: _clean_notes(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clean_notes(inner) for inner in value]
    unclean = isinstance(value, str) and (not value.isprintable() or CHAT_MARKUP.search(value))
    return clean_text(value, MAX_DESCRIPTION_CHARACTERS) if unclean else value
