"""The check `tool_schema`: each call fits the schema of an offered tool, and is answered. Knows no teacher."""

from agents.checks import Options, Subject, check
from agents.checks.base import first_fault
from agents.checks.json_schema import get_required
from plugins.tools.toolbox.tool_spec import find_call_fault, read_parameter_schemas


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
            faults.append(f"a call is in a turn of the {message.role}")
        unanswered = [call.name for call in message.tool_calls]
    if unanswered:
        faults.append(f"the call of {unanswered[0]} is not answered")
    if messages and messages[-1].role == "tool":
        faults.append("the assistant says nothing to the last answer of a tool")
    return first_fault(faults)
