import asyncio
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from agents.checks import Check, Subject
from agents.checks.base import CheckBroken
from core.sample import Candidate, Message, Seed, ToolCall
from plugins.tools.checks.conversation_checks import (
    find_grounding_fault,
    tool_arguments_check,
    tool_schema_check,
    tool_use_check,
)
from plugins.tools.checks.reply_checks import tool_result_check
from plugins.tools.checks.reply_facts import TEXT_SEPARATOR, append_dates, value_lines
from plugins.tools.simulation.conversation_plan import PlannedCall
from plugins.tools.tests.tool_conversations import TODAY, TURNS, subject_of
from tests.agents.checks.rows import check_each

GOLDEN = Path(__file__).parent / "golden"
CHECKS = {check.name: check for check in (tool_schema_check, tool_use_check, tool_arguments_check, tool_result_check)}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
                "required": ["a", "b"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "book",
            "parameters": {
                "type": "object",
                "properties": {
                    "room": {"type": "string", "enum": ["blue", "green"]},
                    "when": {
                        "type": "object",
                        "properties": {
                            "day": {"type": "string", "format": "date"},
                            "hour": {"type": "integer", "minimum": 0, "maximum": 23},
                        },
                        "required": ["day", "hour"],
                    },
                    "note": {"type": "string", "minLength": 1, "maxLength": 40},
                    "guests": {"type": "array", "items": {"type": "string"}, "maxItems": 3, "uniqueItems": True},
                },
                "required": ["room", "when"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time."}},
    {"name": "ping", "parameters": {"type": "object", "properties": {"host": {"type": "string"}}}},
]


def golden(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def fault(check: Check, subject: Subject) -> str | None:
    """What the check found wrong in the conversation's last turn, or at all."""
    findings = asyncio.run(check.findings(subject, check.options()))
    return next((one.evidence for one in findings if not one.passed), None)


@check_each(TURNS)
def test_a_conversation_that_is_right_passes_every_check(base: str) -> None:
    for check in CHECKS.values():
        assert fault(check, subject_of({"base": base})) is None


@check_each(golden("tool_schema"))
def test_a_call_fits_its_tool_or_not(case: Mapping[str, Any]) -> None:
    calls = tuple(ToolCall(**call) for call in case["calls"])
    names = case.get("answers", [call.name for call in calls])
    messages = [
        Message(role="user", content="q"),
        Message(role=case.get("caller", "assistant"), content="", tool_calls=calls),
        *(Message(role="tool", content="1", name=name) for name in names),
    ]
    if case.get("reply", "done"):
        messages.append(Message(role="assistant", content="done"))
    subject = Subject(Seed(id="s-0", data={}), Candidate(messages=messages, fields={"tools": TOOLS}), None)  # type: ignore[arg-type]
    found = fault(tool_schema_check, subject)
    assert (found is None) == case["passes"], found
    assert found is None or len(found) < 400


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        (None, "each tool must be a function with a name of its own"),
        ([{"name": "a"}, {"name": "a"}], "each tool must be a function with a name of its own"),
        ([{"parameters": {}}], "each tool must be a function with a name of its own"),
        ([{"name": "a", "parameters": {"$ref": "https://example.org"}}], "tool a: .*nothing is fetched"),
    ],
)
def test_tools_that_cannot_be_used_break_the_check_and_not_the_sample(tools: Any, problem: str) -> None:
    calls = (ToolCall(name="a", arguments={}),)
    said = [Message(role="assistant", content="", tool_calls=calls)]
    subject = Subject(Seed(id="s-0", data={}), Candidate(messages=said, fields={"tools": tools}), None)  # type: ignore[arg-type]
    with pytest.raises(CheckBroken, match=problem):
        fault(tool_schema_check, subject)


def test_a_result_that_no_tool_gave_is_found() -> None:
    subject = subject_of({"base": "weather", "reply": "Rain in Bergen, 8 °C."})
    messages = [
        message.model_copy(update={"content": message.content.replace(": 7,", ": 8,")})
        if message.role == "tool"
        else message
        for message in subject.candidate.messages
    ]
    forged = subject._replace(candidate=subject.candidate.model_copy(update={"messages": messages}))
    found = fault(tool_result_check, forged)
    assert found
    assert "get_weather gives" in found


@check_each(golden("tool_result"))
def test_a_reply_states_the_result_or_fails(case: Mapping[str, Any]) -> None:
    found = fault(tool_result_check, subject_of(dict(case)))
    assert (found is None) == case["passes"], found
    assert found is None or (len(found) < 500 and "the reply " in found)


@check_each(golden("tool_use"))
def test_the_calls_are_those_that_are_wanted_or_not(case: Mapping[str, Any]) -> None:
    found = fault(tool_use_check, subject_of(dict(case)))
    assert (found is None) == case["passes"], found


@check_each(golden("tool_arguments"))
def test_an_argument_occurs_in_the_conversation_or_fails(case: Mapping[str, Any]) -> None:
    said = [append_dates(text, date.fromisoformat(TODAY)) for text in (*case["before"], case["request"])]
    found = find_grounding_fault(
        PlannedCall(**case["call"]), TEXT_SEPARATOR.join([*said, *value_lines(case["results"])])
    )
    assert (found is None) == case["passes"], found
