import json
from collections import Counter
from pathlib import Path

from agents.families.constrained_instructions import PURPOSES, REQUEST_STYLES, UNFIT_KINDS
from agents.planning.run_plan import RunPlan
from core.sample import RejectionReason, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

GOOD = {"faults": [], "scores": {"sense": 5, "style": 5}, "advice": ""}


def plan_of(*settings: str) -> RunPlan:
    teacher = "teachers.main={model='fake/writer'}"
    return load_recipe_plan("conversations", [teacher, "samples=40", "topology.max_revisions=0", *settings])


def writes(answers: list[str]) -> ScriptedTeacher:
    def answer(question: TeacherQuestion) -> str:
        return json.dumps(GOOD if question.contract == "Review" else {"answers": answers})

    return ScriptedTeacher(answer)


def test_what_is_kept_obeys_every_rule_in_every_answer(tmp_path: Path) -> None:
    plan = plan_of("samples=30", "task.kinds={no_commas=1,no_digits=1,max_words=1}", 'verifiers=[{type="constraints"}]')
    samples = produce_scripted(plan, writes(["A good day to all.", "So it is.", "Yes."]), tmp_path)
    kept = [sample for sample in samples if sample.state == SampleStatus.kept]
    assert {len(sample.seed.data["requests"]) for sample in kept} == {3}, "two turns and three answers do not fit"
    assert all(sample.reason == RejectionReason.contract for sample in samples if sample not in kept)
    for sample in kept:
        said = [message.content for message in sample.candidate.messages if message.role == "assistant"]
        assert not any("," in text or any(c.isdigit() for c in text) or len(text.split()) > 40 for text in said)


def test_no_rule_forbids_what_its_topic_needs_or_clashes_with_its_turn() -> None:
    seeds = build_test_seeds(plan_of("samples=1500", "task.turns=[3]", "task.constraints=[2]"))[:]
    known = {one for style in REQUEST_STYLES.values() for one in (*style.first, *style.later)} | {*PURPOSES}
    assert UNFIT_KINDS.keys() <= known
    met, endings, rules = Counter[str](), 0, 0
    for seed in seeds:
        data = seed.data
        for request, turn in zip(data["requests"], data["constraints"], strict=True):
            kinds = {rule["kind"] for rule in turn}
            for wording, unfit in UNFIT_KINDS.items():
                filled = wording.format(topic=data["topic"])
                if request.startswith(filled[0].upper() + filled[1:]) or f" {filled} " in f" {request} ":
                    met[wording] += 1
                    assert not kinds & {*unfit}, request
            assert not {"exact_sentences", "end_in_language"} <= kinds
            barred = [r["params"].get("word") or r["params"]["letter"] for r in turn if r["kind"].startswith("avoid_")]
            assert not any(word.lower() in data["topic"].lower() for word in barred), (data["topic"], barred)
        endings += sum(rule["kind"] == "end_with" for rule in data["constraints"][-1])
        rules += len(data["constraints"][-1])
    assert met.keys() == UNFIT_KINDS.keys()
    assert endings / rules < 0.02, "one rule in thirty before"
