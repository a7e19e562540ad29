"""What `instructions` draws for a task and its answer, and the check of the drawn shape."""

import json
from collections import Counter
from typing import Any

import pytest

from agents.checks import Subject
from agents.families.constraints import TextConstraint
from agents.families.instructions import InstructionsFamily, TaskDialogueDraft, answered_check
from agents.families.task_draws import FORM_LABEL, LENGTH_LABEL, SYSTEM_LABEL, answer_shape_check, parse_length_band
from agents.reply_schema import InvalidReply
from core.errors import RecipeError
from core.project_files import PROJECT
from core.sample import CONDITIONS_KEY, Candidate, Message, Seed
from core.storage.recording import read_recording
from flows.recipes.recipe_catalog import load_recipe_plan
from tests.agents.checks.rows import findings_of, nobody
from tests.support.scripted_teacher import build_test_seeds

TABLE = "| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |"
FORMS = {
    "plain prose": "Ice floats, since it is lighter.\n\nWater at four degrees sinks: - that is all.",
    "headings": "## Why\n\nIt is light.\n\n## So what\n\nIt floats.",
    "a list": "Three:\n- one\n* two\n3. three",
    "a table": f"Here it is.\n\n{TABLE}\n\nThat is all.",
    "code": "So:\n\n```python\n# one\n\nprint(1)\n```",
    "mathematics": "It costs $5 and then $6: $$x = 11$$",
}
"""A text of each form, none of which has another form too."""


def find_fault(answer: str, *later: str, **drawn: str) -> str:
    messages = [Message(role="user", content="Why?"), Message(role="assistant", content=answer)]
    messages += [Message(role="assistant", content=text) for text in later]
    seed = Seed(id="s-0", data={CONDITIONS_KEY: drawn})
    (finding,) = findings_of(answer_shape_check, Subject(seed, Candidate(messages=messages), nobody))
    return "" if finding.passed else finding.evidence


@pytest.mark.parametrize("asked", FORMS)
def test_each_form_is_found_in_its_text_and_in_no_other(asked: str) -> None:
    passed = {form for form, text in FORMS.items() if not find_fault(text, **{FORM_LABEL: asked})}
    assert passed - {"mathematics"} == {asked} - {"mathematics"}  # a formula may occur in prose
    assert asked in passed


@pytest.mark.parametrize(
    ("words", "expected"), [(79, ""), (64, ""), (63, "has 63 words where 80 to 150"), (180, ""), (181, "has 181 words")]
)
def test_the_first_answer_has_the_drawn_length_with_tolerance(words: int, expected: str) -> None:
    found = find_fault("word " * words, "word", **{LENGTH_LABEL: "80 to 150 words", FORM_LABEL: "plain prose"})
    assert found == "" if expected == "" else expected in found


def test_a_later_answer_that_refuses_is_found() -> None:
    def fault(later: str) -> bool:
        turns = ["Why does ice float?", "Ice is lighter than water.", "And oil?", later]
        roles = ["user", "assistant"] * 2
        messages = [Message(role=role, content=text) for role, text in zip(roles, turns, strict=True)]
        subject = Subject(
            Seed(id="s-0", data={}), Candidate(messages=messages, fields={"instruction": turns[0]}), nobody
        )
        return not findings_of(answered_check, subject)[0].passed

    assert fault("I can't help with that.")
    assert not fault("Sorry, I left that out: oil floats too, since it is lighter.")


@pytest.mark.parametrize(
    ("asked", "text", "found"),
    [
        ("a table", "a | b\n-|-\n1 | 2\n3 | 4", True),
        ("a table", f"```\n{TABLE}\n```", False),
        ("headings", "#\tWhy\n\nSo.\n\n#\tHow\n\nThus.", True),
        ("headings", "# \n\nSo.\n\n# \n\nThus.", False),
    ],
)
def test_tables_and_headings_are_read_as_the_rules_of_texts_read_them(asked: str, text: str, found: bool) -> None:
    assert bool(find_fault(text, **{FORM_LABEL: asked})) != found
    rule = {"a table": ("table", {"columns": 2, "rows": 2}), "headings": ("sections", {"n": 2})}[asked]
    assert bool(TextConstraint(kind=rule[0], params=rule[1], text="").fault(text)) != found


def test_values_that_bar_every_type_leave_a_task_without_one() -> None:
    plan = load_recipe_plan(
        "instructions", ["samples=20", "task.apart=[['new','x']]", "task.types={x={kinds=['riddle']}}"]
    )
    assert not any("Kind" in seed.conditions for seed in build_test_seeds(plan)[:] if seed.data["way"] == "new")


def test_code_and_formulas_may_count_as_words_or_not() -> None:
    code = "```\n" + "x = y\n" * 100 + "```"
    for words in (10, 60):
        assert not find_fault("word " * words + "\n" + code, **{LENGTH_LABEL: "40 to 80 words", FORM_LABEL: "code"})
    assert find_fault("word " * 100 + "\n" + code, **{LENGTH_LABEL: "40 to 80 words"})


@pytest.mark.parametrize("text", ["|" * 100_000, "$" * 99_999, r"\[" * 5_000, "```\n" * 25_000, "\n" * 100_000 + "x"])
@pytest.mark.timeout(60)
def test_huge_answers_are_judged_in_time(text: str) -> None:
    for form in FORMS:
        find_fault(text, **{FORM_LABEL: form, LENGTH_LABEL: "80 to 150 words"})


def test_a_capable_models_answers_have_their_own_shape_and_seldom_that_of_another() -> None:
    """Of the last drafts in the recording, those with a drawn length."""
    written = [
        (
            sample.seed.get(CONDITIONS_KEY, {}),
            json.loads([reply for reply in sample.replies if reply.agent == "generator"][-1].reply),
        )
        for sample in read_recording(PROJECT / "benchmarks" / "recordings" / "scenes" / "instructions.jsonl")
    ]
    shaped = [(drawn, draft["answer"]) for drawn, draft in written if LENGTH_LABEL in drawn]
    refused = [[bool(find_fault(answer, **drawn)) for _, answer in shaped] for drawn, _ in shaped]
    assert len(shaped) == 13
    assert not any(row[place] for place, row in enumerate(refused))
    assert sum(map(sum, refused)) == 129, "of 156 exchanged"


def test_the_shipped_recipe_draws_shapes_that_go_together() -> None:
    plan = load_recipe_plan("instructions", ["samples=600"])
    seeds = build_test_seeds(plan)[:]
    for seed in seeds:
        drawn, kind = seed.conditions, plan.options.types.get(seed.data.get("type", ""))
        if kind:
            assert drawn["Kind"] in kind.kinds
            assert drawn.get(FORM_LABEL, "none") in kind.forms
            low, high = parse_length_band(drawn[LENGTH_LABEL])
            assert kind.words[0] <= low
            assert high <= kind.words[1]
            assert (drawn.get(FORM_LABEL), low) not in {("headings", 20), ("headings", 40), ("headings", 80)}
    lengths = Counter(seed.conditions.get(LENGTH_LABEL) for seed in seeds)
    assert lengths.keys() == {*plan.options.answers, None}
    assert 0.1 < sum(SYSTEM_LABEL in seed.conditions for seed in seeds) / len(seeds) < 0.3
    assert {plan.family.prompt_role(seed) for seed in seeds} == {"generator", "conversation"}


def test_no_reaction_comes_twice_in_a_conversation() -> None:
    settings = ["samples=200", "task.turns={4=1}", "task.reactions={often=97,seldom=1,rare=1}", "task.ways={new=1}"]
    for seed in build_test_seeds(load_recipe_plan("instructions", settings))[:]:
        turns = [seed.conditions[f"Turn {number} of the user"] for number in (2, 3, 4)]
        assert set(turns) == {"often", "seldom", "rare"}


def test_a_dialogue_has_the_drawn_system_message_and_turns() -> None:
    family = InstructionsFamily()
    drawn = {SYSTEM_LABEL: "a role", "Turn 2 of the user": "asks why", "Turn 3 of the user": "doubts it"}
    seed = Seed(id="s-0", data={CONDITIONS_KEY: drawn})
    schema = family.reply_json_schema(seed)
    assert schema["required"] == ["system", "instruction", "answer", "later"]
    assert (schema["properties"]["later"]["minItems"], schema["properties"]["later"]["maxItems"]) == (2, 2)
    draft_values: dict[str, Any] = {
        "instruction": "Why?",
        "answer": "So.",
        "later": [{"user": "Oh?", "assistant": "Yes."}] * 2,
    }
    messages = family.candidate(seed, TaskDialogueDraft(system="Be brief.", **draft_values)).messages
    assert [turn.role for turn in messages] == ["system", *["user", "assistant"] * 3]
    for draft in (
        TaskDialogueDraft(**draft_values),
        TaskDialogueDraft(system="Be brief.", **{**draft_values, "later": []}),
    ):
        with pytest.raises(InvalidReply):
            family.candidate(seed, draft)
    with pytest.raises(ValueError, match="instruction"):
        TaskDialogueDraft(**{**draft_values, "instruction": "  "})
    only_system = Seed(id="s-1", data={CONDITIONS_KEY: {SYSTEM_LABEL: "a role"}})
    assert family.reply_json_schema(only_system)["required"] == ["system", "instruction", "answer"]


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("task.answers={short=1}", "'short' is no length; write one such as `80 to 150 words`"),
        ("task.answers={'90 to 80 words'=1}", "is no length"),
        ("task.turns={0=1}", "task.turns: unknown numbers 0; known are 1, 2, 3, 4, 5, 6"),
        ("task.types={x={kinds=[]}}", "types.x.kinds"),
        ("task.types={x={kinds=['y'],weight=0}}", "needs at least one type with a weight above 0"),
        ("task.reactions={}", "turns = 4 needs 3 `reactions`"),
        ("task.types={x={kinds=['y'],forms={chart=1}}}", "plain prose"),
        ("task.types={x={kinds=['y'],forms={code=-1}}}", "types.x.forms: needs at least one form .* {'code': -1.0}"),
        (
            "task.types={x={kinds=['y'],draw={Tool={a=-1}}}}",
            "types.x.draw.Tool: needs at least one value .* {'a': -1.0}",
        ),
        ("task.types={x={kinds=['y'],words=[800,40]}}", "fewest words before the most, .* not \\[800, 40\\]"),
        ("task.reactions={only=1}", "turns = 4 needs 3 `reactions` or more, .*, not 1"),
        ("task.apart=[['hedings','20 to 40 words']]", "apart: 'hedings' is no value, .* did you mean 'headings'"),
        ("task.ways={new=0}", "needs at least one way with a weight above 0"),
    ],
)
def test_a_shape_that_cannot_be_drawn_is_refused(setting: str, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        load_recipe_plan("instructions", [setting])
