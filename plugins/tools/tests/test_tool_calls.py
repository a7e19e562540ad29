import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import jsonschema
import pytest

import prompts
from agents.planning.run_plan import RunPlan
from core.sample import Message, Sample, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.tools.simulation.simulated_tools import SIMULATED_TOOLS
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
