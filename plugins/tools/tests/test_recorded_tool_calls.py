"""Conversations that a capable model wrote, with the seeds that they were written for, and wrong replies next to theirs."""

import json
from typing import Any

import pytest

from agents.checks import Subject
from core.project_files import PROJECT
from core.sample import Seed
from core.storage.recording import read_recording
from plugins.tools.checks.conversation_checks import tool_arguments_check, tool_schema_check, tool_use_check
from plugins.tools.checks.reply_checks import tool_result_check
from plugins.tools.tests.test_tool_conversations import fault
from plugins.tools.tests.tool_conversations import subject_of
from plugins.tools.tool_family import ToolCallsFamily, ToolDraft

RECORDED = {
    f"{number:04}": {"seed": sample.seed, "reply": sample.replies[0].reply}
    for number, sample in enumerate(
        read_recording(PROJECT / "benchmarks" / "recordings" / "earlier" / "tool-calls.jsonl"), start=1
    )
}
"""Seeds and first drafts."""
CHECKS = (tool_schema_check, tool_use_check, tool_arguments_check, tool_result_check)


async def ask_nobody(*_: Any, **__: Any) -> Any:
    raise AssertionError("no teacher is asked")


def recorded_subject(name: str, *, turn: int = -1, **changed: str) -> Subject:
    """A recorded conversation, with what is changed in one of its turns."""
    one = RECORDED[name]
    draft = json.loads(one["reply"])
    draft["turns"][turn] |= changed
    seed = Seed(id="s-0", data=one["seed"])
    return Subject(seed, ToolCallsFamily().candidate(seed, ToolDraft.model_validate(draft)), ask_nobody)


@pytest.mark.parametrize(
    ("name", "turn", "reply"),
    [
        ("0012", 0, "45 USD is 33.93 GBP at tomorrow's rate."),
        ("0012", 0, "45 USD is 33.93 GBP at Friday's exchange rate."),
        ("0012", 0, "45 USD was 33.93 GBP yesterday."),
        ("0012", 0, "45 USD is 39.33 GBP at today's rate."),
        ("0012", 1, "A lesson with Elif is in your calendar today at 12:00."),
        ("0008", 1, "Padua gets rain today at 1 °C."),
        ("0008", 0, "The Eleventh Harbour is on loan and due back today."),
        ("0014", 0, "Each of the 6 people pays 92.16 EUR today."),
    ],
)
def test_a_reply_with_another_day_fails(name: str, turn: int, reply: str) -> None:
    assert fault(tool_result_check, recorded_subject(name, turn=turn, reply=reply))


@pytest.mark.parametrize(
    ("base", "reply", "right"),
    [
        ("in pounds", "One desk lamp costs 24.90 EUR, which is 21.17 GBP today.", True),
        ("in pounds", "The desk lamp costs 24.90 EUR, and one is left, which is 21.17 GBP.", False),
        ("in pounds", "One tea kettle costs 24.90 EUR, which is 21.17 GBP.", False),
        ("product", "Today the desk lamp costs 24.90 EUR, and 5 are in stock.", True),
        ("product", "Tomorrow the desk lamp costs 24.90 EUR, and 5 are in stock.", False),
        ("two towns", "Neither is dry: Bergen gets rain at 7 °C, Ghent has fog at 12 °C.", True),
        ("two towns", "Neither is dry. Bergen gets rain at 7 °C, Ghent has fog at 7 °C.", False),
        ("which day", "Where is that, and for which day?", True),
        ("outside", "Nobody can book a table here.", True),
        ("outside", "Nora can book no table here.", False),
    ],
)
def test_what_is_said_naturally_passes_and_its_wrong_neighbor_fails(base: str, reply: str, right: bool) -> None:
    subject = subject_of({"base": base, "reply": reply})
    assert all(fault(check, subject) is None for check in (tool_use_check, tool_result_check)) == right
