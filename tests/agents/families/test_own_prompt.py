"""Conversations by a prompt and a check of one's own."""

import json
from collections import Counter
from pathlib import Path

import pytest

from agents.families.own_prompt import OwnPromptFamily
from agents.planning.run_plan import RunPlan
from core.project_files import PROJECT
from core.sample import RejectionReason, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from teachers.fake.fake_teacher import FakeTeacher
from tests.flows.commands.test_commands import called
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

FAKE = "teachers.main={model='fake/writer'}"
NO_DOLLARS = '''
from stillhouse.checks import Options, Subject, check

@check("no_dollars")
def no_dollars(subject: Subject, options: Options) -> str | None:
    """No answer names a price."""
    answers = [turn.content for turn in subject.candidate.messages if turn.role == "assistant"]
    return next((f"answer {number} names a price" for number, text in enumerate(answers, 1) if "$" in text), None)
'''


def write_recipe(folder: Path, *lines: str, prompt: str = "") -> RunPlan:
    if prompt:
        (folder / "prompts").mkdir()
        (folder / "prompts" / "generator.md").write_text(prompt)
        lines = ('prompts = "prompts"', *lines)
    (folder / "recipe.toml").write_text("\n".join(['name = "x"', 'family = "own_prompt"', "samples = 2", *lines]))
    return load_recipe_plan(str(folder / "recipe.toml"), [FAKE, "agents.critic=false"])


def exchange(user: str, assistant: str) -> dict[str, str]:
    return {"user": user, "assistant": assistant}


def test_a_run_has_the_drawn_turns_and_the_recipes_check_decides(tmp_path: Path) -> None:
    plan = load_recipe_plan("own-prompt", [FAKE, "samples=200", "topology.max_revisions=0"])
    runs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        runs.append(produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "writer"), tmp_path / name))
    assert [sample.model_dump_json() for sample in runs[0]] == [sample.model_dump_json() for sample in runs[1]]
    turns = Counter(sample.seed.data["turns"] for sample in runs[0])
    assert turns.keys() == {1, 2, 3}
    assert turns[1] > turns[3] > 20, "80 and 40 are expected"
    kept = [sample for sample in runs[0] if sample.state == SampleStatus.kept]
    assert len(kept) > 80
    for sample in kept:
        roles = [turn.role for turn in sample.candidate.messages]
        assert roles == ["user", "assistant"] * sample.seed.data["turns"]
    assert {(s.reason, s.detail) for s in runs[0] if s.state == SampleStatus.dropped} == {
        (RejectionReason.verifier, "shop_answers")
    }
    assert any(sample.turns[-1].attempt for sample in kept), "an exchange too many is requested again"


@pytest.mark.parametrize(
    ("exchanges", "fault"),
    [
        ([exchange("Why?", "So.")], "exchanges: 1 where 2 are needed"),
        ([exchange("Why?", "So.")] * 3, "exchanges: 3 where 2 are needed"),
        ([], "exchanges: list should have at least 1 item"),
        ([exchange("Why?", "So."), exchange(" \n", "So.")], "exchanges.1.user: string should have at least 1 char"),
        ([exchange("Why?", ""), exchange("Why?", "So.")], "exchanges.0.assistant: string should have at least 1 char"),
        ([exchange("Why?", "So."), {"user": "Why?"}], "exchanges.1.assistant: field required"),
    ],
)
def test_a_reply_of_another_form_is_requested_again_with_its_fault(
    exchanges: list[dict[str, str]], fault: str, tmp_path: Path
) -> None:
    plan = write_recipe(tmp_path, 'seeds.draw.tone = ["kind"]', "task.turns = [2]")
    good = [exchange("Why? ", "So."), exchange("And?", "\tSo too.")]

    def answer(question: TeacherQuestion) -> str:
        assert question.json_schema is not None
        asked = question.json_schema["properties"]["exchanges"]
        assert (asked["minItems"], asked["maxItems"]) == (2, 2)
        again = "not the JSON object" in question.messages[-1].content
        return json.dumps({"exchanges": good if again else exchanges})

    for sample in produce_scripted(plan, ScriptedTeacher(answer), tmp_path):
        assert fault in sample.turns[1].asked
        assert [turn.content for turn in sample.candidate.messages] == ["Why?", "So.", "And?", "So too."]


def test_a_revision_repeats_the_request_of_the_recipes_own_prompt(tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text(NO_DOLLARS)
    plan = write_recipe(
        tmp_path,
        'seeds.draw.tone = ["kind"]',
        "task.turns = [3]",
        '[[verifiers]]\ntype = "no_dollars"\npath = "checks.py"',
        prompt="## system\nYou write.\n\n## user\nTell of a {{tone}} shop in {{turns}} turns.\n",
    )

    def answer(question: TeacherQuestion) -> str:
        price = "" if "names a price" in question.messages[-1].content else " $5"
        return json.dumps({"exchanges": [exchange("a", "b"), exchange("c", "d"), exchange("e", f"f{price}")]})

    for sample in produce_scripted(plan, ScriptedTeacher(answer), tmp_path):
        assert [verdict.evidence for verdict in sample.verdicts] == [
            "answer 3 names a price",
            "No answer names a price.",
        ]
        assert [turn.content for turn in sample.turns[1].context[:2]] == [
            "You write.",
            "Tell of a kind shop in 3 turns.",
        ]
        assert sample.candidate.answer == "b\nd\nf"


def test_the_default_prompt_shows_any_row_and_the_text_of_a_document(tmp_path: Path) -> None:
    row = {"topic": "tea", "of_age": True, "years": 3.0, "tags": ["a", "b"], "note": ""}
    (tmp_path / "seeds.jsonl").write_text(json.dumps(row) + "\n")
    plan = write_recipe(tmp_path, 'seeds.path = "seeds.jsonl"', 'seeds.draw.tone = ["kind"]')
    [shown] = {OwnPromptFamily().prompt_values(seed)["seed"] for seed in build_test_seeds(plan)}
    assert shown == 'Topic: tea\nOf age: true\nYears: 3\nTags: ["a", "b"]'
    (asked,) = {
        sample.turns[0].asked
        for sample in produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "writer"), tmp_path)
    }
    assert asked == f"{shown}\nExchanges: 1\nTone: kind"

    plan = write_recipe(tmp_path, f'seeds.documents = "{PROJECT / "data" / "documents"}"')
    seed = build_test_seeds(plan)[0]
    headings = f"Headings: {seed.data['headings']}\n" if seed.data["headings"] else ""
    assert OwnPromptFamily().prompt_values(seed)["seed"] == f"{headings}Text: {seed.data['text']}"


def test_drawn_values_are_seeds_enough(tmp_path: Path) -> None:
    plan = write_recipe(tmp_path, 'seeds.draw.tone = ["kind", "curt"]', "task.turns = [2]")
    assert [seed.data["turns"] for seed in build_test_seeds(plan)] == [2, 2]


def test_validate_and_preview_print_the_recipe_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "validate", "own-prompt", "--set", FAKE, "--json")
    assert (code, json.loads(out)["valid"]) == (0, True)
    code, out, _ = called(capsys, "preview", "own-prompt", "--set", FAKE, "-n", "2", "--json")
    assert code == 0
    for sample in json.loads(out)["samples"]:
        assert {turn["role"] for turn in sample["candidate"]["messages"]} == {"user", "assistant"}


def test_the_built_in_recipe_has_ten_lines() -> None:
    lines = (PROJECT / "flows" / "recipes" / "own-prompt.toml").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 10
