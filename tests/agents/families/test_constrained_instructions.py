import itertools
import json
import re
from pathlib import Path

import pytest

from agents.families.constraint_drawing import TextConstraint
from agents.families.constraints import CONSTRAINT_KINDS
from agents.planning.run_plan import RunPlan
from core.sample import RejectionReason, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

GOOD = {"scores": {"sense": 5, "style": 5}, "faults": [], "advice": "Keep it."}


def plan_of(*settings: str) -> RunPlan:
    teacher = "teachers.main={model='fake/writer'}"
    return load_recipe_plan("conversations", [teacher, "samples=40", "topology.max_revisions=0", *settings])


def test_rules_add_up_turn_by_turn_and_never_contradict_each_other() -> None:
    seeds = build_test_seeds(plan_of("samples=300"))[:]
    assert {len(seed.data["requests"]) for seed in seeds} == {2, 3}
    assert 80 < sum(bool(seed.data["system"]) for seed in seeds) < 160
    for seed in seeds:
        turns = seed.data["constraints"]
        for before, after in itertools.pairwise(turns):
            assert after[: len(before)] == before
            groups = [CONSTRAINT_KINDS[one["kind"]].group for one in after]
            assert len(set(groups)) == len(groups)
        assert all(one["text"] in seed.data["instruction"] for one in turns[-1])


def writes(answers: list[str]) -> ScriptedTeacher:
    def answer(question: TeacherQuestion) -> str:
        return json.dumps(GOOD if question.contract == "Review" else {"answers": answers})

    return ScriptedTeacher(answer)


def test_a_rule_of_the_first_turn_or_of_the_system_binds_the_last_answer(tmp_path: Path) -> None:
    settings = [
        "samples=30",
        "task.turns=[2]",
        "task.kinds={no_commas=1,no_digits=1,no_exclamation=1}",
        "task.system=1.0",
    ]
    plan = plan_of(*settings, 'verifiers=[{type="constraints"}]')
    samples = produce_scripted(plan, writes(["A good day to all.", "A good day, to 4 of you!"]), tmp_path)
    for sample in samples:
        assert sample.candidate.messages[0].role == "system"
        failed = next(verdict for verdict in sample.verdicts if not verdict.passed)
        assert failed.evidence.startswith("answer 2: ")
        rules = [TextConstraint.model_validate(one) for one in sample.seed.data["constraints"][1]]
        assert failed.check in {rule.kind for rule in rules}
    assert {(sample.state, sample.reason) for sample in samples} == {(SampleStatus.dropped, RejectionReason.verifier)}


def test_what_is_kept_obeys_every_rule_in_every_answer(tmp_path: Path) -> None:
    plan = plan_of("samples=30", "task.kinds={no_commas=1,no_digits=1,max_words=1}", 'verifiers=[{type="constraints"}]')
    samples = produce_scripted(plan, writes(["A good day to all.", "So it is.", "Yes."]), tmp_path)
    kept = [sample for sample in samples if sample.state == SampleStatus.kept]
    assert {len(sample.seed.data["requests"]) for sample in kept} == {3}, "two turns and three answers do not fit"
    assert all(sample.reason == RejectionReason.contract for sample in samples if sample not in kept)
    for sample in kept:
        said = [message.content for message in sample.candidate.messages if message.role == "assistant"]
        assert not any("," in text or any(c.isdigit() for c in text) or len(text.split()) > 40 for text in said)


@pytest.mark.parametrize("turns", [2, 3])
def test_the_prompt_and_schema_give_the_number_of_answers(turns: int, tmp_path: Path) -> None:
    teacher = writes(["x."] * turns)
    produce_scripted(plan_of("samples=2", f"task.turns=[{turns}]"), teacher, tmp_path)
    schema = next(q for q in teacher.asked if q.contract == "Conversation").json_schema
    assert (schema["properties"]["answers"]["minItems"], schema["properties"]["answers"]["maxItems"]) == (turns, turns)


def test_no_rule_requires_a_text_that_another_forbids() -> None:
    """All kinds, many rules at once: the words and letters that are forbidden are named by no other rule."""
    seeds = build_test_seeds(plan_of("samples=1500", "task.constraints=[3]", "task.turns=[3]", "task.system=0.5"))[:]
    forbidden = 0
    for seed in seeds:
        rules = seed.data["constraints"][-1]
        for rule in rules:
            others = " ".join(json.dumps(other["params"]) for other in rules if other is not rule).lower()
            if rule["kind"] in ("avoid_word", "avoid_letter"):
                forbidden += 1
                values = re.findall(r'"([^"]*)"', re.sub(r'"[a-z_]+":', "", others))
                assert not any(
                    rule["params"].get("word", rule["params"].get("letter")).lower() in value for value in values
                )
        kinds = {rule["kind"] for rule in rules}
        assert not {"numbered", "no_digits"} <= kinds
        assert not (kinds & {"json_keys", "bullets"} and kinds & {"start_with", "end_with", "end_question"})
    assert forbidden > 300
