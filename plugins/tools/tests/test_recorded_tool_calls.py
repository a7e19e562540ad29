"""Conversations that a capable model wrote, with the seeds that they were written for, and wrong replies next to theirs."""

import json
import re
from typing import Any

import pytest

import prompts
from agents.checks import Subject
from agents.reply_schema import Review
from core.project_files import PROJECT
from core.sample import Seed
from core.storage.recording import read_recording
from plugins.tools.checks.conversation_checks import tool_arguments_check, tool_result_check, tool_use_check
from plugins.tools.checks.tool_schema import tool_schema_check
from plugins.tools.families.conversation_form import TOOL_PROMPTS
from plugins.tools.families.tool_calls import ToolCallsFamily, ToolDraft
from plugins.tools.simulation import SIMULATED_TOOLS
from plugins.tools.simulation.simulated_tool import run_tool
from plugins.tools.tests.test_tool_conversations import fault
from plugins.tools.tests.tool_conversations import WORLD, subject_of

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


def subject_for(data: dict[str, Any], turn: dict[str, Any]) -> Subject:
    seed = Seed(id="s-0", data=data)
    return Subject(seed, ToolCallsFamily().candidate(seed, ToolDraft.model_validate({"turns": [turn]})), ask_nobody)


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


@pytest.mark.parametrize(
    ("base", "request_", "right"),
    [
        ("order", "2 desk lamps to Ghent by express delivery.", True),
        ("order", "2 lamps to Ghent by express delivery.", False),
        ("order", "2 tea kettles to Ghent by express delivery.", False),
        ("renewal", "May I keep The Salt Road for another week?", True),
        ("renewal", "May I keep The Salt Road for a while?", False),
    ],
)
def test_arguments_may_be_said_as_people_say_them(base: str, request_: str, right: bool) -> None:
    assert (fault(tool_arguments_check, subject_of({"base": base, "request": request_})) is None) == right


@pytest.mark.parametrize(
    ("request_", "reply", "right"),
    [
        ("How much is the desk lamp?", "The desk lamp costs 24.90 EUR.", True),
        ("Is the desk lamp in stock?", "Yes, 5 of the desk lamp are in stock.", True),
        ("Is the desk lamp in stock, and what does it cost?", "The desk lamp costs 24.90 EUR.", False),
        ("How much is the desk lamp?", "5 of the desk lamp are in stock.", False),
        ("How much is the desk lamp?", "The desk lamp costs 24.90 EUR, and 4 are in stock.", False),
        ("The desk lamp, please look it up.", "The desk lamp costs 24.90 EUR.", False),
        ("Please tell me the prices of a desk lamp.", "The desk lamp costs 24.90 EUR.", True),
        ("What does a desk lamp cost? I have to buy one before Friday.", "A desk lamp costs 24.90 EUR.", True),
        ("What does a desk lamp cost? I want to get my daughter one.", "A desk lamp costs 24.90 EUR.", True),
        ("How much is a desk lamp? The boys lost them, and left.", "A desk lamp costs 24.90 EUR.", True),
        ("The price of a desk lamp over there?", "A desk lamp costs 24.90 EUR.", True),
        ("What does a desk lamp cost? I hope they have some left.", "A desk lamp costs 24.90 EUR.", False),
        ("What does a desk lamp cost, and can I get one today?", "A desk lamp costs 24.90 EUR.", False),
        ("How much is a desk lamp, and is one there?", "A desk lamp costs 24.90 EUR.", False),
        ("Prices of a desk lamp, and how many?", "A desk lamp costs 24.90 EUR.", False),
        ("Does the shop still have a desk lamp, and at what price?", "A desk lamp costs 24.90 EUR.", False),
    ],
)
def test_a_reply_may_leave_out_the_stock_or_price_that_nobody_asked_for(request_: str, reply: str, right: bool) -> None:
    subject = subject_of({"base": "product", "request": request_, "reply": reply})
    assert (fault(tool_result_check, subject) is None) == right


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("That is too far by bicycle: 225 km, and only 120 km are possible.", True),
        ("225 km is too far for a bicycle route, the limit is 120 km.", True),
        ("That is too far by bicycle: 150 km, and only 120 km are possible.", False),
        ("It is 225 km by bicycle.", False),
    ],
)
def test_a_distance_in_an_error_may_be_told(reply: str, right: bool) -> None:
    places = {"Verona": [45.44, 10.99], "Udine": [46.06, 13.24]}
    world = {**WORLD, "towns": {name: {"coordinates": place, "forecast": {}} for name, place in places.items()}}
    route = {"name": "plan_route", "arguments": {"start": "Verona", "destination": "Udine", "mode": "bicycle"}}
    result = run_tool(world, SIMULATED_TOOLS, "plan_route", route["arguments"]).result  # type: ignore[arg-type]
    wish = {"kind": "error", "calls": [route], "results": [result], "tool": "", "missing": "", "said": {}, "need": ""}
    data = {"world": world, "offered": ["plan_route"], "intro": "-", "written_out": False, "wishes": [wish]}
    turn = {"request": "From Verona to Udine by bicycle?", "calls": [route], "reply": reply}
    assert (fault(tool_result_check, subject_for(data, turn)) is None) == right


@pytest.mark.parametrize("family", ["tool_calls", "user_tools"])
def test_the_critics_examples_quote_what_they_see(family: str) -> None:
    messages = prompts.load_prompt(family, "critic", None, TOOL_PROMPTS / family).messages
    scores, faultless = set(), 0
    for asked, answered in zip(messages[1:-1:2], messages[2::2], strict=True):
        review = Review.model_validate_json(answered.content)
        faultless += not review.faults
        scores |= {*review.scores.values()}
        assert all(one.quote in asked.content for one in review.faults)
        assert (review.advice == "") == (not review.faults)
    assert {3, 4} <= scores
    assert faultless
    assert not any(re.search(r"keep it as it is", message.content, re.IGNORECASE) for message in messages)
