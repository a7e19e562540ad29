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
from plugins.tools.checks.call_schema import tool_schema_check
from plugins.tools.checks.conversation_checks import split_turns
from plugins.tools.checks.reply_checks import find_reply_fault
from tests.agents.checks.rows import check_each

GOLDEN = Path(__file__).parent / "golden"
TUESDAY = date(2025, 11, 4)
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


@check_each(golden("tool_result"))
def test_a_reply_states_the_result_or_fails(case: Mapping[str, Any]) -> None:
    turns = split_turns([Message.model_validate(message) for message in case["messages"]])
    found = find_reply_fault(turns[:-1], turns[-1], [], TUESDAY, planned=True)
    assert (found is None) == case["passes"], found
    assert found is None or (len(found) < 700 and "the reply " in found)
