"""Whether every tool call fits the tools that a conversation offers, and is answered. Knows no tool and no family."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agents.checks.base import Options, Subject, check
from agents.checks.schema import BadSchema, Schema, part_of, value_fault
from core.sample import Message, ToolCall


class ToolSchemaOptions(Options):
    field: str = "tools"
    """Which field of the candidate has the offered tools, in OpenAI's form or as bare functions."""
    strict: bool = True
    """Whether arguments are refused that a tool's schema neither names nor expressly allows."""


@check("tool_schema", ToolSchemaOptions)
def tool_schema(subject: Subject, options: ToolSchemaOptions) -> str | None:
    """Every call must name an offered tool, its arguments must fit that tool's schema, and the tool must answer it."""
    offered = schemas_of(part_of(subject.candidate.fields, options.field, "the candidate"))
    messages = subject.candidate.messages
    calls = [call for message in messages for call in message.tool_calls]
    faults = (call_fault(call, offered, strict=options.strict) for call in calls)
    return next((fault for fault in (*faults, *_unanswered(messages)) if fault), None)


def schemas_of(tools: Any) -> dict[str, Schema]:
    """The schemas of the parameters of `tools`, by name.

    Raises:
        ValueError: where `tools` are not functions, each with a name of its own.
    """
    found: dict[str, Schema] = {}
    for tool in tools if isinstance(tools, list) else [tools]:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or function["name"] in found:
            raise ValueError(f"each tool must be a function with a name of its own, not {str(tool)[:80]!r}")
        found[function["name"]] = function.get("parameters") or {"type": "object", "properties": {}}
    return found


def call_fault(call: ToolCall, offered: Mapping[str, Schema], *, strict: bool = True) -> str | None:
    """Why a call cannot be made, in a sentence.

    Raises:
        ValueError: where the tool's own schema cannot be used.
    """
    if call.name not in offered:
        return f"there is no tool {call.name[:80]!r}; there are {', '.join(offered) or 'none'}"
    try:
        fault = value_fault(call.arguments, offered[call.name], strict=strict)
    except BadSchema as error:
        raise ValueError(f"tool {call.name}: {error}") from None
    return f"the arguments of {call.name} do not fit its schema: {fault}" if fault else None


def _unanswered(messages: Sequence[Message]) -> Iterator[str]:
    """Calls without an answer and answers without a call: each tool answers in the order of the calls, before anyone speaks."""
    open_: list[str] = []
    for message in messages:
        if message.role == "tool":
            if open_[:1] != [message.name]:
                yield f"{message.name or 'a tool'} answers, but {open_[0] if open_ else 'no tool'} was called"
            open_ = open_[1:]
            continue
        if open_:
            yield f"the call of {open_[0]} is not answered"
        if message.tool_calls and message.role != "assistant":
            yield f"a call stands in a turn of the {message.role}"
        open_ = [call.name for call in message.tool_calls]
    if open_:
        yield f"the call of {open_[0]} is not answered"
    if messages and messages[-1].role == "tool":
        yield "the assistant says nothing to the last answer of a tool"
