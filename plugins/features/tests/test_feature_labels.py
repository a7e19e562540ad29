"""A label is as good as what it detects on passages that its explanation did not show."""

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from agents.calls.agent_context import LocalAgentContext
from agents.calls.call_ledger import CallLedger
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.features.feature_gaps import find_dataset_feature_gaps
from plugins.features.feature_labelling import add_labels, read_labels
from plugins.features.feature_labels import FeatureEvidence, FeatureLabel, ask_for_labels
from plugins.features.tests.conftest import write_rows, write_texts
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


def write_long_texts(seed: int, *, brackets: bool) -> list[str]:
    """The texts of the other tests after 170 words. With brackets, in half of them; all go on then, with brackets at the end."""
    texts = [f"{'tea ' * 170}{text}" for text in write_texts(120, seed, brackets=brackets)]
    return [f"{text} {'tea ' * 30}(last)." for text in texts] if brackets else texts


@pytest.fixture
def evidence(dictionary: str, tmp_path: Path) -> list[FeatureEvidence]:
    """Of long texts with brackets, compared with shorter ones without any."""
    folder = Path(shutil.copytree(dictionary, tmp_path / "dictionary"))
    record = json.loads((folder / "reader.json").read_text())
    (folder / "reader.json").write_text(json.dumps({**record, "context": 2_000}))
    real = write_rows(tmp_path / "real.jsonl", write_long_texts(1, brackets=True))
    poor = write_rows(tmp_path / "poor.jsonl", write_long_texts(2, brackets=False))
    found: list[FeatureEvidence] = []
    find_dataset_feature_gaps(Path(poor), real, folder, None, 10, explain=found.extend)
    return found


def test_the_evidence_of_a_label_is_where_the_feature_is(evidence: list[FeatureEvidence]) -> None:
    first = evidence[0]
    # Half of the texts have brackets, a few of them outside of the passage.
    assert min(sum("(" in text for text in side) for side in (first.active, first.held_out_active)) >= 8
    assert max(sum("(" in text for text in side) for side in (first.inactive, first.held_out_inactive)) <= 3
    sides = [side for one in evidence for side in one[1:]]
    assert {len(side) for side in sides} == {10}
    plain = [text.replace("«", "").replace("»", "") for side in sides for text in side]
    assert not any("last)" in text for text in plain), "a passage has brackets after the part that was compared"
    # Passages without the feature are from the same parts of their texts, and as long.
    assert all(text.startswith("…") and 250 <= len(text) <= 502 for text in plain)
