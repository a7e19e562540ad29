import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import prompts
from agents.checks import Subject
from agents.planning.run_plan import RunPlan
from core.project_files import PROJECT
from core.sample import Message, Sample, SampleStatus, Seed
from core.storage.recording import read_recording
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.tools.checks.conversation_checks import tool_use_check
from plugins.tools.checks.reply_checks import tool_result_check
from plugins.tools.simulation.simulated_tools import SIMULATED_TOOLS
from plugins.tools.simulation.simulated_world import CATALOGUE, DOMAINS_BY_NAME
from plugins.tools.tests.test_tool_conversations import fault
from plugins.tools.tests.tool_conversations import subject_of
from plugins.tools.tool_family import ToolCallsFamily, ToolDraft
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

FAKE = ["teachers.main={model='fake/tool_calls'}", "agents.critic=false", "topology.max_revisions=0"]


def plan_of(*overrides: str) -> RunPlan:
    return load_recipe_plan("tool-calls", [*FAKE, *overrides])


def made(tmp_path: Path, *overrides: str) -> list[Sample]:
    plan = plan_of(*overrides)
    return produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "tool_calls"), tmp_path)


def turns_in(messages: list[Message]) -> list[list[Message]]:
    """Our own way to cut a conversation: a turn begins where the user speaks."""
    turns: list[list[Message]] = []
    for message in messages[1:]:
        if message.role == "user":
            turns.append([])
        turns[-1].append(message)
    return turns


def digits(text: str) -> set[str]:
    return {str(float(number)) for number in re.findall(r"\d+(?:\.\d+)?", text)}


def test_seeds_are_the_same_each_time_and_varied() -> None:
    seeds = build_test_seeds(plan_of("samples=300"))[:]
    assert seeds == build_test_seeds(plan_of("samples=300"))[:]
    assert [s.data for s in build_test_seeds(plan_of("samples=300", "seed=8"))[:]] != [s.data for s in seeds]
    wishes = [wish for seed in seeds for wish in seed.data["wishes"]]
    assert len({json.dumps([wish["calls"], wish["said"], wish["need"]]) for wish in wishes}) > 0.9 * len(wishes)
    called = Counter(call["name"] for wish in wishes for call in wish["calls"])
    assert set(called) == set(SIMULATED_TOOLS)
    assert all(2 <= len(seed.data["offered"]) <= 4 for seed in seeds)
    assert len({tuple(sorted(seed.data["offered"])) for seed in seeds}) > 100


def test_kept_conversations_pass_an_independent_verification(tmp_path: Path) -> None:
    samples = made(tmp_path, "samples=200")
    assert {sample.state for sample in samples} == {SampleStatus.kept, SampleStatus.dropped}
    kept = [sample for sample in samples if sample.state == SampleStatus.kept]
    assert len(kept) > 100
    for sample in kept:
        assert sample.candidate.messages[0].content.count("<tools>\n") == 1
        offered = {tool["function"]["name"]: tool["function"] for tool in sample.candidate.fields["tools"]}
        heard = ""
        for turn, wish in zip(turns_in(sample.candidate.messages), sample.seed.data["wishes"], strict=True):
            calls = [call for message in turn for call in message.tool_calls]
            assert bool(calls) == (wish["kind"] not in ("ask", "outside"))
            for call in calls:
                jsonschema.validate(call.arguments, offered[call.name]["parameters"])
                assert "x-evidence" not in json.dumps(offered[call.name])
            answers = [message for message in turn if message.role == "tool"]
            assert [message.name for message in answers] == [call.name for call in calls]
            assert any("error" in json.loads(one.content) for one in answers) == (wish["kind"] == "error")
            heard += " ".join(message.text for message in turn[:-1])
            assert digits(turn[-1].content) <= digits(heard), turn
            assert (turn[-1].role, turn[-1].tool_calls) == ("assistant", ())


def test_the_prompts_own_examples_pass_every_check() -> None:
    """The calls run in another world, whose results are in the prompt."""
    prompt = prompts.load_prompt("tool_calls", "generator", None, ToolCallsFamily.prompts)
    for example in prompt.examples:
        draft = ToolDraft.model_validate_json(example)
        assert all(turn.request and turn.reply for turn in draft.turns)
    calls = [call for example in prompt.examples for turn in json.loads(example)["turns"] for call in turn["calls"]]
    asked = "\n".join(message.content for message in prompt.messages if message.role == "user")
    for call in calls:
        assert f"- {call['name']} {json.dumps(call['arguments'])} returns " in asked
        jsonschema.validate(call["arguments"], SIMULATED_TOOLS[call["name"]].parameters)
    for tool in re.findall(r"^- (\w+): (.*)$", asked, re.MULTILINE):
        assert SIMULATED_TOOLS[tool[0]].description == tool[1]


def test_the_schema_sent_to_the_teacher_accepts_only_the_right_calls() -> None:
    seed = build_test_seeds(plan_of("samples=40", "task={turns=[2]}"))[3]
    schema = ToolCallsFamily().reply_json_schema(seed)
    jsonschema.Draft202012Validator.check_schema(schema)
    turns = [{"request": "q", "calls": wish["calls"], "reply": "a"} for wish in seed.data["wishes"]]
    jsonschema.validate({"turns": turns}, schema)
    for broken in (turns[:1], [*turns, turns[0]], [{**turns[0], "calls": [{"name": "x", "arguments": {}}]}, turns[1]]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"turns": broken}, schema)


@pytest.mark.parametrize(
    "reply",
    [
        '{"turns": []}',
        '{"turns": [{"request": "q", "calls": [], "reply": "a"}, {"request": "q", "calls": [], "reply": "a"}]}',
        '{"turns": [{"request": "q", "calls": [{"name": "a", "arguments": {"x": NaN}}], "reply": "a"}]}',
        '{"turns": [{"request": "q", "calls": [{"name": "a", "arguments": []}], "reply": "a"}]}',
        '{"turns": [{"request": "", "calls": [], "reply": "a"}]}',
    ],
)
def test_a_draft_that_does_not_fit_its_plan_is_a_contract_fault(reply: str, tmp_path: Path) -> None:
    plan = plan_of("samples=4", "task.turns=[1]")
    samples = produce_scripted(plan, ScriptedTeacher(lambda _: reply), tmp_path)
    assert {(sample.state, sample.reason) for sample in samples} == {(SampleStatus.failed, "contract")}


def changed(reply: str) -> Iterator[str]:
    """The reply with one number made another, two numbers exchanged, or a word of its facts replaced."""
    numbers = [*re.finditer(r"\d+", reply)]
    for found in numbers:
        for step in (1, -1, 10):
            if (value := int(found[0]) + step) >= 0:
                yield f"{reply[: found.start()]}{str(value).zfill(len(found[0]))}{reply[found.end() :]}"
    for one, two in combinations(numbers, 2):
        middle = f"{two[0]}{reply[one.end() : two.start()]}{one[0]}"
        if one[0] != two[0]:
            yield f"{reply[: one.start()]}{middle}{reply[two.end() :]}"
    for right, wrong in OTHERS.items():
        if re.search(rf"\b{right}\b", reply):
            yield re.sub(rf"\b{right}\b", wrong, reply, count=1)


OTHERS = {
    "rain": "fog", "fog": "snow", "EUR": "GBP", "GBP": "EUR", "km": "miles", "am": "pm", "November": "December",
    "Thursday": "Friday", "tomorrow": "today", "on loan": "available", "available": "on loan", "minutes": "hours",
    "hour": "minute", "Bergen": "Oslo", "Ghent": "Turku", "Ines": "Per", "euros": "francs", "km/h": "km",
}  # fmt: skip


RECORDED = {
    f"{number:04}": {"seed": sample.seed, "reply": sample.replies[0].reply}
    for number, sample in enumerate(
        read_recording(PROJECT / "benchmarks" / "recordings" / "earlier" / "tool-calls.jsonl"), start=1
    )
}
"""Seeds and first drafts."""


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


SETTINGS = ["teachers.main={model='fake/tool_calls'}", "agents.critic=false", "samples=3000", "task.turns=[1,2,3]"]


@cache
def drawn_seeds() -> tuple[Seed, ...]:
    return tuple(build_test_seeds(load_recipe_plan("tool-calls", SETTINGS))[:])


def calls_of(seed: Seed) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Calls with results, and the calls that an `ask` leaves to the user."""
    return [pair for wish in seed.data["wishes"] for pair in zip(wish["calls"], wish["results"], strict=True)]


def test_no_turn_contradicts_another() -> None:
    """A plan repeats no call, and nothing fails that an earlier turn has looked up."""
    for seed in drawn_seeds():
        made: list[str] = []
        things: set[str] = set()
        for before, wish in pairwise([None, *seed.data["wishes"]]):
            names = {
                str(call["arguments"][key])
                for call in wish["calls"]
                for key in ("city", "product", "title")
                if key in call["arguments"]
            }
            if wish["kind"] == "error":
                assert not names & things, seed.data["wishes"]
            assert before is None or before["kind"] != "ask" or wish["calls"][0]["name"] == before["tool"]
            made += [json.dumps(call) for call in wish["calls"]]
            things |= names
        assert len(made) == len(set(made)), made
        needs = [wish["need"] for wish in seed.data["wishes"] if wish["need"]]
        assert len(needs) == len(set(needs))


def test_a_plan_fits_its_persona() -> None:
    abouts = 0
    for seed in drawn_seeds():
        domain = DOMAINS_BY_NAME[seed.data["world"]["domain"]]
        assert seed.data["who"] in domain.personas
        assert seed.data["why"] in domain.purposes
        for wish in seed.data["wishes"]:
            assert {call["name"] for call in wish["calls"]} | {wish["tool"]} <= {*domain.tools, ""}
            needs = {SIMULATED_TOOLS[name].need for name in domain.tools} | {*domain.needs, ""}
            assert wish["need"] in needs
            texts = {one.about for some in (domain.measures, domain.payments, domain.bills) for one in some}
            assert not wish["about"] or wish["about"] in texts | {*domain.trips, *domain.weather}
            abouts += bool(wish["about"])
        for call, result in calls_of(seed):
            given = call["arguments"]
            if "product" in given:
                assert given["product"] in domain.goods
                assert given.get("quantity", 1) <= CATALOGUE[given["product"]].most
                price = result.get("price_eur", CATALOGUE[given["product"]].least_eur)
                assert CATALOGUE[given["product"]].least_eur <= price <= CATALOGUE[given["product"]].most_eur
            if call["name"] == "add_event":
                hour = int(given["when"]["start"][:2])
                fitting = [
                    e for e in domain.events if e.first_hour <= hour < e.last_hour and given["minutes"] in e.minutes
                ]
                assert any(re.fullmatch(e.title.replace("NAME", r"\w+"), given["title"]) for e in fitting), call
                assert date.fromisoformat(given["when"]["day"]).weekday() < 5
            if call["name"] == "find_book":
                assert not seed.data["world"]["library"].get(given["title"], {"mine": False})["mine"]
    assert abouts > 1000
