"""A label is as good as what it detects on passages that its explanation did not show."""

import asyncio
import json
import re
from pathlib import Path

from agents.calls.agent_context import LocalAgentContext
from agents.calls.call_ledger import CallLedger
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.features.feature_labelling import add_labels, read_labels
from plugins.features.feature_labels import FeatureEvidence, FeatureLabel, ask_for_labels
from teachers.base import TeacherQuestion
from tests.support.scripted_teacher import ScriptedTeacher, open_scripted_dispatcher

WITH = [f"{'The bees left, all of them. ' * 30}The bees (number {n}) left." for n in range(20)]
"""With brackets after 800 characters: no passage is cut."""
WITHOUT = [f"The rivers of place {n} rise." for n in range(20)]


def answer(question: TeacherQuestion) -> str:
    """Explains the first feature by its brackets and detects them; calls every other feature a tense, and finds it nowhere."""
    asked = question.messages[-1].content
    if question.contract == "Explanation":
        label = "text in brackets" if "(«" in asked else "past tense"
        return json.dumps({"common": "They are alike.", "label": label})
    passages = re.findall(r"^(\d+)\. (.*)$", asked, re.MULTILINE)
    shown = "brackets" in asked.splitlines()[0]
    return json.dumps({"numbers": [int(number) for number, text in passages if shown and "(" in text]})


def build_evidence(feature: int, mark: str) -> FeatureEvidence:
    return FeatureEvidence(
        feature, [text.replace("(number", mark) for text in WITH[:10]], WITHOUT[:10], WITH[10:], WITHOUT[10:]
    )


def test_a_label_is_confirmed_only_if_it_detects_held_out_passages(tmp_path: Path) -> None:
    plan, teacher = load_recipe_plan("smoke", []), ScriptedTeacher(answer)
    evidence = [build_evidence(3, "(«number»"), build_evidence(5, "(number")]

    async def label() -> list[FeatureLabel]:
        with CallLedger(tmp_path / "calls.jsonl") as ledger:
            async with open_scripted_dispatcher(plan, teacher, tmp_path) as dispatcher:
                return await ask_for_labels(LocalAgentContext(plan, dispatcher, ledger), evidence, lambda _text: None)

    first, second = asyncio.run(label())
    assert (first.feature, first.label, first.balanced_accuracy, first.is_confirmed) == (
        3,
        "text in brackets",
        1.0,
        True,
    )
    assert (second.feature, second.balanced_accuracy, second.is_confirmed) == (5, 0.5, False)
    # No passage of a detection was shown in the explanation.
    explained = "".join(q.messages[-1].content for q in teacher.asked if q.contract == "Explanation")
    detected = "".join(q.messages[-1].content for q in teacher.asked if q.contract == "Detection")
    assert all(text not in explained and text in detected for text in (*WITH[10:], *WITHOUT[10:]))
    assert len(teacher.asked) == 2 * (1 + 4)

    add_labels(tmp_path, [first, second])
    add_labels(tmp_path, [second.model_copy(update={"label": "later"})])
    assert {feature: label.label for feature, label in read_labels(tmp_path).items()} == {
        3: "text in brackets",
        5: "later",
    }
