"""A critic scores exactly the rubrics of its prompt; any other reply is repaired."""

import json
from pathlib import Path
from typing import Any

import pytest

import prompts
from agents.families import list_families
from agents.families.base import RecipeFamily
from agents.planning.rubrics import asks_for_quotes, build_review_schema, find_rubrics
from core.sample import RejectionReason, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from tests.support.scripted_teacher import ScriptedTeacher, produce_scripted

SETTINGS = [
    "samples=1", "task.kinds={max_words=1}", "task.constraints=[1]", 'verifiers=[{type="constraints"}]',
    "agents.critic.max_repairs=1",
]  # fmt: skip


def review(scores: Any) -> str:
    return json.dumps({"scores": scores, "faults": [], "advice": "Keep it."})


@pytest.mark.whole
@pytest.mark.parametrize("family", list_families(), ids=lambda family: family.name)
def test_the_critic_of_every_family_names_its_rubrics(family: RecipeFamily) -> None:
    rubrics = find_rubrics(prompts.load_prompt(family.name, "critic", installed=family.prompts))
    assert rubrics
    scores = build_review_schema(rubrics)["properties"]["scores"]
    assert list(scores["properties"]) == scores["required"] == list(rubrics)
    assert scores["additionalProperties"] is False


@pytest.mark.attack(
    "a critic scores other rubrics, or beyond the scale",
    "requested again, then the sample fails",
)
@pytest.mark.parametrize(
    "scores",
    [
        {"x": 5}, {"sense": 5}, {"sense": 5, "style": 5, "x": 5}, {}, {"sense": 5, "style": 6}, {"sense": 0, "style": 5},
        {"sense": 5, "style": 4.5}, {"sense": 5, "style": "5"}, {"sense": True, "style": 5}, {"sense": 5, "style": None},
        {"sense": 5, "style": 10**400}, [5, 5],
    ],
)  # fmt: skip
@pytest.mark.parametrize("mended", [True, False])
def test_a_critique_of_other_rubrics_is_asked_for_again_and_then_costs_its_sample(
    scores: Any, mended: bool, tmp_path: Path
) -> None:
    schemas = []

    def answer(question: TeacherQuestion) -> str:
        if question.contract == "Draft":
            return json.dumps({"answer": "Bees fly."})
        schemas.append(question.json_schema)
        again = "not the JSON object" in question.messages[-1].content
        return review({"style": 5, "sense": 4} if again and mended else scores)

    [sample] = produce_scripted(load_recipe_plan("smoke", SETTINGS), ScriptedTeacher(answer), tmp_path)
    assert [(turn.agent, turn.attempt) for turn in sample.turns] == [("generator", 0), ("critic", 0), ("critic", 1)]
    quotes = asks_for_quotes(prompts.load_prompt("constrained_instructions", "critic"))
    assert schemas == [build_review_schema(("sense", "style"), quotes=quotes)] * 2
    if mended:
        assert (sample.state, sample.critiques[0].scores) == (SampleStatus.kept, {"style": 5, "sense": 4})
    else:
        assert (sample.state, sample.reason) == (SampleStatus.failed, RejectionReason.contract)
        assert sample.detail.startswith("critic: scores")
