"""The checks of conversations with the user's own tools: what they accept, and each fault that they detect."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from agents.checks import Check, Subject
from benchmarks.external_truth.bfcl import (
    BfclRow,
    CategoryResult,
    convert_row,
    find_fault,
    list_right_answers,
    list_wrong_answers,
    measure_category,
    table,
)
from core.errors import UsageError
from core.sample import Message, Seed
from flows.data.student_files import load_student_plan
from plugins.tools.checks.call_schema import tool_schema_check
from plugins.tools.checks.conversation_checks import (
    find_success_claim,
    parse_json_or_text,
    tool_arguments_check,
    tool_use_check,
)
from plugins.tools.checks.reply_checks import tool_result_check
from plugins.tools.tool_family import OwnToolsFamily, ToolTranscript
from plugins.tools.tool_script import write_step
from teachers.base import TeacherQuestion
from tests.flows.data.test_foreign_runs import run_with_checks

CHECKS: Mapping[str, Check] = {
    "schema": tool_schema_check,
    "use": tool_use_check,
    "arguments": tool_arguments_check,
    "result": tool_result_check,
}


def tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TEXT, NUMBER = {"type": "string"}, {"type": "number"}
TOOLS = [
    tool("find_book", "Find a book of the Riverside Library.", title=TEXT),
    tool("lend_book", "Lend a book.", title=TEXT, card=TEXT, days={"type": "integer", "enum": [7, 14]}),
    tool("search", "Search.", query=TEXT),
    tool("rate", "Convert money.", amount=NUMBER),
]
Call = tuple[str, dict[str, Any], Any]
DUNE: Call = ("find_book", {"title": "Dune"}, {"title": "Dune", "author": "Frank Herbert", "shelf": "D4", "copies": 2})
NONE: Call = ("find_book", {"title": "Emma"}, "error: there is no book Emma")
LENT: Call = (
    "lend_book",
    {"title": "Dune", "card": "K-1234", "days": 14},
    {"lent": "Dune", "days": 14, "due": "2026-03-06"},
)


def subject(
    request: str, calls: Sequence[Sequence[Call]], reply: str, kind: str = "call", tools: Sequence[Any] = TOOLS
) -> Subject:
    steps = [
        [
            {"name": name, "arguments": arguments, "failed": str(result).startswith("error"),
             "result": result if isinstance(result, str) else json.dumps(result)}
            for name, arguments, result in step
        ]
        for step in calls
    ]  # fmt: skip
    family = OwnToolsFamily()
    data = {
        "task": "x",
        "kinds": [kind],
        "fitting": [],
        "offered": 4,
        "rules": "",
        "intro": "Help.",
        "written_out": False,
    }
    seed = Seed(id="test-000000", data=data)
    turns = [{"kind": kind, "request": request, "steps": steps, "reply": reply, "thinking": [""] * (len(steps) + 1)}]
    draft = ToolTranscript.model_validate({"tools": tools, "turns": turns})
    return Subject(seed, family.candidate(seed, draft), cast(Any, None))


def faults(case: Subject) -> dict[str, str]:
    """The evidence of each check that fails, by its name here."""
    found: dict[str, str] = {}
    for name, check in CHECKS.items():
        findings = asyncio.run(check.findings(case, check.options()))
        if failed := [finding.evidence for finding in findings if not finding.passed]:
            found[name] = failed[0]
    return found


SHELF = "On which shelf is Dune?"
LEND = "Lend me Dune on K-1234 for 14 days."


@pytest.mark.parametrize(
    ("request_", "calls", "reply", "kind"),
    [
        (SHELF, [[DUNE]], "Dune by Frank Herbert is on shelf D4, and 2 copies are in.", "call"),
        (LEND, [[DUNE], [LENT]], "Done: Dune is yours for 14 days, until 6 March 2026.", "call"),
        (LEND, [[LENT]], "Dune is lent until 2026-03-06.", "call"),
        ("Do you have Emma or Dune?", [[NONE, DUNE]], "Emma could not be found; of Dune 2 copies are in.", "call"),
        ("Anything on the history of rome?", [[("search", {"query": "history Rome"}, ["SPQR", "Rubicon"])]],
         "I found 2: SPQR and Rubicon.", "call"),
        ("What is 20 euros?", [[("rate", {"amount": 20}, "That is 17.00 GBP today.")]], "It is 17 GBP.", "call"),
        ("What is lent on K-1234?", [[("search", {"query": "K-1234"}, [])]], "Nothing is lent on K-1234.", "call"),
        ("Please lend me a book.", [], "Which book would you like?", "ask"),
        ("Book me a train.", [], "I cannot do that; I only know the Riverside Library.", "outside"),
    ],
)  # fmt: skip
def test_a_right_conversation_passes_all_checks(request_: str, calls: list[list[Call]], reply: str, kind: str) -> None:
    assert faults(subject(request_, calls, reply, kind)) == {}


@pytest.mark.parametrize(
    ("check", "request_", "calls", "reply", "kind", "evidence"),
    [
        ("schema", SHELF, [[("find", {"title": "Dune"}, "error: no")], [DUNE]], "Shelf D4.", "call", "no tool 'find'"),
        ("schema", LEND, [[("lend_book", {**LENT[1], "days": 15}, "error: 15")], [LENT]], "It is.", "call", "15 is not"),
        ("use", SHELF, [], "It is on shelf D4.", "call", "a tool must be called"),
        ("use", "Book me a train.", [[DUNE]], "I cannot do that.", "outside", "no tool may be called"),
        ("use", "Book me a train.", [], "It is booked.", "outside", "nothing was done"),
        ("use", "Book me a train.", [], "Trains are nice.", "outside", "must say plainly"),
        ("use", "Lend me something.", [], "Tell me more.", "ask", "must ask"),
        ("use", SHELF, [[DUNE], [DUNE]], "Dune is on shelf D4.", "call", "called twice with the same result"),
        ("use", LEND, [[("search", {"query": "Lend"}, ["Ulysses"])], [LENT]], "Dune is lent until 2026-03-06.", "call",
         "uses what search returned"),
        ("use", "Is Emma in?", [[NONE]], "There is no book Emma.", "call", "each call failed"),
        ("use", SHELF, [[DUNE]], "find_book says D4.", "call", "a message names the tool find_book"),
        ("arguments", "Which shelf?", [[DUNE]], "Dune is on shelf D4.", "call", "`title` of find_book is 'Dune'"),
        ("arguments", "Lend me Dune.", [[LENT]], "Dune is lent until 2026-03-06.", "call", "`card` of lend_book is 'K-1234'"),
        ("arguments", "What is 20 euros?", [[("rate", {"amount": 21}, "17.85")]], "17.85.", "call", "`amount` of rate is 21"),
        ("arguments", "Any novels?", [[("search", {"query": "cheap flights"}, ["SPQR"])]], "SPQR.", "call", "`query`"),
        ("result", SHELF, [[DUNE]], "Dune is on shelf D5.", "call", "'D5'"),
        ("result", SHELF, [[DUNE]], "Dune is on shelf D4, with 3 copies in.", "call", "'3'"),
        ("result", SHELF, [[DUNE]], "Dune by Brian Herbert is on shelf D4.", "call", "'Brian'"),
        ("result", LEND, [[LENT]], "Dune is lent until 7 March 2026.", "call", "'7 March 2026'"),
        ("result", SHELF, [[DUNE]], "I have looked it up for you.", "call", "says nothing of what find_book returned"),
        ("result", "Is Emma in?", [[NONE]], "Emma is reserved and all set.", "call", "nothing was done"),
        ("result", "Book me a train.", [], "No, but the 8:15 goes there.", "outside", "'8:15'"),
    ],
)  # fmt: skip
def test_each_fault_is_detected(
    check: str, request_: str, calls: list[list[Call]], reply: str, kind: str, evidence: str
) -> None:
    found = faults(subject(request_, calls, reply, kind))
    assert evidence in found[check]


WEEKDAYS = {"type": "string", "enum": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]}
OFFICE = [
    tool("book_visit", "Book a visit.", report=TEXT, day=WEEKDAYS, hour={"type": "integer"}),
    tool("set_alarm", "Set an alarm.", hour={"type": "integer"}, minute={"type": "integer"}),
    tool("remind", "Remind somebody.", when=TEXT),
    tool("show_report", "Show an open report.", report=TEXT),
    tool("find_tenant", "Look up who rents a flat.", flat=TEXT),
    tool("close_report", "Close a report.", report=TEXT),
]
SHOWN = {"report": "R-9244", "flat": "1C", "problem": "stuck lock", "urgent": False, "visit": "Monday at 9:00"}
TENANT: Call = ("find_tenant", {"flat": "6B"}, {"flat": "6B", "tenant": "Runa Oduya", "phone": "555-4187"})
CLOSED: Call = ("close_report", {"report": "R-1222"}, {"closed": "R-1222", "open_reports": 3})


def office_faults(request: str, call: Call | None, reply: str, kind: str = "call") -> str:
    """The evidence of all checks; empty if they pass."""
    return "; ".join(faults(subject(request, [[call]] if call else [], reply, kind, OFFICE)).values())


@pytest.mark.parametrize(
    ("named", "arguments", "evidence"),
    [
        ("16:00", {"hour": 16, "minute": 0}, None),
        ("4 pm", {"hour": 16, "minute": 0}, None),
        ("16 o'clock", {"hour": 16, "minute": 0}, None),
        ("nine o'clock", {"hour": 9, "minute": 0}, None),
        ("4 in the afternoon", {"hour": 16, "minute": 0}, None),
        ("7:45 am", {"hour": 7, "minute": 45}, None),
        ("7:45 am", {"when": "wake at 07:45"}, None),
        ("9 o'clock", {"when": "9:00"}, None),
        ("16:00", {"hour": 15, "minute": 0}, "`hour` of set_alarm is 15"),
        ("4 pm", {"hour": 4, "minute": 0}, "`hour` of set_alarm is 4"),
        ("4 o'clock", {"hour": 16, "minute": 0}, "`hour` of set_alarm is 16"),
        ("half past three o'clock", {"hour": 3, "minute": 0}, "`hour` of set_alarm is 3"),
        ("7:45 am", {"hour": 7, "minute": 40}, "`minute` of set_alarm is 40"),
        ("7:45 am", {"hour": 45, "minute": 45}, "`hour` of set_alarm is 45"),
        ("7:45 am", {"when": "wake at 07:40"}, "`when` of remind is 'wake at 07:40'"),
        ("7:45 am", {"when": "25:00"}, "`when` of remind is '25:00'"),
    ],
)
def test_hours_and_minutes_of_a_named_time_may_be_arguments(
    named: str, arguments: dict[str, Any], evidence: str | None
) -> None:
    call = ("remind" if "when" in arguments else "set_alarm", arguments, "It rings then.")
    found = office_faults(f"Please wake me at {named}.", call, "It rings then.")
    assert evidence in found if evidence else not found


@pytest.mark.parametrize(
    ("request_", "call", "reply", "evidence"),
    [
        ("What is R-9244?", ("show_report", {"report": "R-9244"}, SHOWN), "A stuck lock, to be seen on Monday.", None),
        ("R-5 on tuesday at 9:00.", ("book_visit", {"report": "R-5", "day": "Tuesday", "hour": 9}, {"id": "V-7"}),
         "V-7 is on Tuesday.", None),
        ("Is 6B ours every Friday?", TENANT, "On Fridays too, Runa Oduya rents it.", None),
        ("What is R-9244?", ("show_report", {"report": "R-9244"}, SHOWN), "A stuck lock, to be seen on Tuesday.", "'Tuesday'"),
        ("Who rents 6B today?", TENANT, "Runa Oduya, since Monday.", "'Monday'"),
        ("R-5 on tuesday at 9:00.", ("book_visit", {"report": "R-5", "day": "Friday", "hour": 9}, {"visit": "Friday at 9:00"}),
         "R-5 is on Friday at 9:00.", "`day` of book_visit is Friday"),
    ],
)  # fmt: skip
def test_a_weekday_comes_from_any_text_of_the_conversation(
    request_: str, call: Call, reply: str, evidence: str | None
) -> None:
    found = office_faults(request_, call, reply)
    assert evidence in found if evidence else not found


@pytest.mark.parametrize(
    ("reply", "evidence"),
    [
        ("Flat 6B is Runa Oduya's.", None),
        ("Call 555-4187, where Runa Oduya answers.", None),
        ("It is the number of Runa Oduya that ends in 4187.", None),
        ("Flat 6E is Runa Oduya's.", "'6E'"),
        ("It is rented by _Brian_ Oduya.", "Brian_"),
        ("Call 555-4188, where Runa Oduya answers.", "'555-4188'"),
        ("It is the number of Runa Oduya that ends in 4188.", "'4188'"),
        ("It is the number of Runa Oduya that ends in 418.", "'418'"),
    ],
)
def test_a_code_is_no_name_and_may_be_given_in_part(reply: str, evidence: str | None) -> None:
    found = office_faults("Who rents 6B?", TENANT, reply)
    assert evidence in found if evidence else not found


@pytest.mark.parametrize(
    ("request_", "reply", "evidence"),
    [
        ("Change my number to 555 0143.", "I cannot change it to 555 0143.", None),
        ("Order a double-glazed pane.", "I cannot order a double-glazed pane.", None),
        ("Change my number to 555 0143.", "I cannot change it to 555 0144.", "'0144'"),
        ("Order a pane.", "I cannot order a double-glazed pane.", "'double'"),
        ("Order a double-glazed pane.", "I cannot order it at half the price.", "'half'"),
    ],
)
def test_numbers_and_vague_numbers_are_repeated_as_the_user_wrote_them(
    request_: str, reply: str, evidence: str | None
) -> None:
    found = office_faults(request_, None, reply, "outside")
    assert evidence in found if evidence else not found


@pytest.mark.parametrize(
    ("reply", "evidence"),
    [
        ("Report R-1222 is closed.", None),
        ("Done, 3 reports are open.", None),
        ("I have looked into R-1222.", "says nothing of what close_report returned"),
        ("Report R-1223 is closed.", "'R-1223'"),
        ("Report R-1222 is closed, and 4 are open.", "'4'"),
    ],
)
def test_a_reply_names_what_a_result_says_was_done(reply: str, evidence: str | None) -> None:
    found = office_faults("Please close R-1222.", CLOSED, reply)
    assert evidence in found if evidence else not found


HELD = {"id": "B-12", "guest": "Mira Boe", "status": "confirmed"}
HELD_ERROR = "error: B-12 is confirmed, and only one that is requested can be changed so"


@pytest.mark.parametrize(
    ("reply", "results", "request_", "claim"),
    [
        ("B-12 is confirmed.", [HELD_ERROR], "Confirm it.", None),
        ("It is already confirmed.", [HELD_ERROR], "Confirm it.", None),
        ("Mira Boe's booking is confirmed.", [{"found": 1, "list": [HELD]}], "Remove it.", None),
        ("All right, it stays confirmed.", [HELD], "No, leave B-12.", None),
        ("Order 17 is booked.", ["Your order 17 is booked."], "And a taxi?", None),
        ("The bill is settled.", [], "Pay it.", None),
        ("I have confirmed B-12.", [HELD], "Confirm B-12.", "confirmed"),
        ("B-13 is confirmed.", [HELD], "Confirm B-13.", "confirmed"),
        ("B-12 is cancelled.", [HELD, HELD_ERROR], "Cancel B-12.", "cancelled"),
        ("It is confirmed.", [{"id": "B-12", "status": "requested"}], "Confirm B-12.", "confirmed"),
        ("It is booked.", [], "Book it.", "booked"),
        ("R-9244 is booked for Monday at 9:00.", [SHOWN], "Move R-9244.", None),
        ("Visits can only be booked from 8 to 17.", [], "Book it.", None),
        ("R-9244 is booked for Friday at 9:00.", [SHOWN], "Move R-9244.", "booked"),
        ("I have booked R-9244 for Monday at 9:00.", [SHOWN], "Move R-9244.", "booked"),
        ("R-9244 is cancelled for Monday at 9:00.", [SHOWN], "Cancel R-9244.", "cancelled"),
        ("R-9244 is booked for the flat 1C.", [SHOWN], "Book a visit to 1C.", "booked"),
    ],
)
def test_what_a_result_reports_or_what_is_possible_is_no_claim_of_success(
    reply: str, results: list[Any], request_: str, claim: str | None
) -> None:
    assert find_success_claim(reply, results, request_) == claim


def test_results_of_another_sample_do_not_support_a_reply() -> None:
    """The control: each reply passes with its own result, and fails with each other's."""
    titles = {"Dune": ("Frank Herbert", "D4", 2), "Emma": ("Jane Austen", "A7", 5), "Ulysses": ("James Joyce", "J1", 3)}
    results = {t: {"title": t, "author": a, "shelf": s, "copies": c} for t, (a, s, c) in titles.items()}
    replies = ("{title} by {author} is on shelf {shelf}.", "It is on {shelf}.", "There are {copies} copies of it.")
    for title, own in results.items():
        for shown in results:
            for reply in replies:
                call = ("find_book", {"title": title}, results[shown])
                found = faults(subject(f"Is {title} in?", [[call]], reply.format(**own)))
                assert ("result" in found) == (shown != title)


ROWS = [convert_row(json.loads(line)) for line in Path(__file__).with_name("bfcl_rows.jsonl").read_text().splitlines()]
CONTRADICTORY = {
    "simple_python_149", "simple_python_307", "simple_python_358", "multiple_76", "parallel_152", "parallel_multiple_12",
    "parallel_multiple_143", "parallel_multiple_173",
}  # fmt: skip
"""Rows in which a possible answer of BFCL breaks BFCL's own schema."""


@pytest.fixture(scope="module")
def result() -> CategoryResult:
    return measure_category("fixtures", ROWS)


def test_right_answers_pass_and_wrong_ones_fail(result: CategoryResult) -> None:
    assert (len(ROWS), result.refused, result.passed) == (20, [], [])
    assert {row for row, _ in result.contradictory} == CONTRADICTORY
    assert result.right > 60
    assert set(result.wrong) == {
        "unknown function", "unknown argument", "missing argument", "wrong type", "outside the enum", "wrong type of an item",
    }  # fmt: skip
    assert "| fixtures | 20 |" in table([result])


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_each_planted_fault_is_the_only_difference(row: BfclRow) -> None:
    """A wrong answer that failed for another reason would prove nothing."""
    good = [calls for calls in list_right_answers(row) if find_fault(row, calls) is None]
    for wrong in list_wrong_answers(row):
        assert find_fault(row, wrong.calls), wrong
        assert sum(repr(one) != repr(other) for one, other in zip(good[0], wrong.calls, strict=True)) == 1


@pytest.mark.attack(
    "a run folder of others whose recipe has tools",
    "nothing is run or started; exit 2 says what would be",
)
@pytest.mark.parametrize(
    ("source", "act"),
    [
        ({"module": "tools.py"}, r"run the file .*tools.py \(tools.0.module\)"),
        ({"command": ["python", "server.py"]}, r"start python server.py \(tools.0.command\)"),
        ({"url": "http://example.org/mcp"}, r"send texts to http://example.org/mcp \(tools.0.url\)"),
    ],
)
def test_the_tools_of_a_strangers_run_are_not_started(source: dict[str, Any], act: str, tmp_path: Path) -> None:
    run, _ = run_with_checks(tmp_path / "stranger")
    recipe = json.loads(run.recipe_file.read_text())
    recipe["recipe"] |= {"verifiers": [], "family": "tool_calls", "task": {}, "tools": [source]}
    run.recipe_file.write_text(json.dumps(recipe))
    with pytest.raises(UsageError, match=act):
        load_student_plan(run.student, run, tmp_path / "mine")


def test_a_result_nested_too_deep_is_a_text() -> None:
    deep = "[" * 3000 + "]" * 3000
    assert parse_json_or_text(deep) == deep
    lines = [{"user": "Find it."}, {"calls": []}, {"tool": "find", "result": deep}]
    question = TeacherQuestion(
        messages=[Message(role="user", content="\n".join(map(json.dumps, lines)))],
        contract="step", json_schema=None, temperature=0, top_p=1, max_tokens=100, seed=0,
    )  # fmt: skip
    assert deep in str([write_step(Random(n), question) for n in range(9)])
