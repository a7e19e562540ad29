"""The check `tool_schema`: each call fits the schema of an offered tool, and is answered. Knows no teacher."""

from collections.abc import Mapping
from typing import Any

from agents.checks import Options, Subject, check
from agents.checks.base import first_fault
from agents.checks.json_schema import InvalidSchema, JsonSchema, find_schema_fault, get_required
from core.sample import ToolCall


class ToolSchemaOptions(Options):
    field: str = "tools"
    """Of the candidate, with the offered tools."""
    strict: bool = True
    """Refuse arguments that the schema neither names nor allows."""


@check("tool_schema", ToolSchemaOptions)
def tool_schema_check(subject: Subject, options: ToolSchemaOptions) -> str | None:
    """Every call must name an offered tool, its arguments must fit that tool's schema, and the tool must answer it."""
    offered = read_parameter_schemas(get_required(subject.candidate.fields, options.field, "the candidate"))
    messages = subject.candidate.messages
    calls = [call for message in messages for call in message.tool_calls]
    faults = [find_call_fault(call, offered, strict=options.strict) for call in calls]
    # Tools answer in the order of the calls, before the next text.
    unanswered: list[str] = []
    for message in messages:
        if message.role == "tool":
            if unanswered[:1] != [message.name]:
                called = unanswered[0] if unanswered else "no tool"
                faults.append(f"{message.name or 'a tool'} answers, but {called} was called")
            unanswered = unanswered[1:]
            continue
        if unanswered:
            faults.append(f"the call of {unanswered[0]} is not answered")
        if message.tool_calls and message.role != "assistant":
            faults.append(f"a call stands in a turn of the {message.role}")
        unanswered = [call.name for call in message.tool_calls]
    if unanswered:
        faults.append(f"the call of {unanswered[0]} is not answered")
    if messages and messages[-1].role == "tool":
        faults.append("the assistant says nothing to the last answer of a tool")
    return first_fault(faults)


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
