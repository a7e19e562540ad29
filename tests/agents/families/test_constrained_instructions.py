import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from agents.families.constraint_drawing import TextConstraint
from agents.families.constraints import CONSTRAINT_KINDS
from agents.families.request_styles import PURPOSES, REQUEST_STYLES, UNFIT_KINDS
from agents.planning.run_plan import RunPlan
from core.sample import RejectionReason, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

GOOD = {"faults": [], "scores": {"sense": 5, "style": 5}, "advice": ""}


def plan_of(*settings: str) -> RunPlan:
    teacher = "teachers.main={model='fake/writer'}"
    return load_recipe_plan("conversations", [teacher, "samples=40", "topology.max_revisions=0", *settings])


def test_requests_are_worded_in_drawn_styles_and_never_twice_alike_in_a_conversation() -> None:
    seeds = build_test_seeds(plan_of("samples=200"))[:]
    wordings = Counter(seed.data["requests"][0].replace(seed.data["topic"], "").split(".")[0][:20] for seed in seeds)
    assert max(wordings.values()) <= 20, "one opening of a request in ten at most"
    plain = build_test_seeds(plan_of("samples=200", "task.styles={plain=1}"))[:]
    openings = Counter(seed.data["requests"][0].replace(seed.data["topic"], "").split(".")[0][:20] for seed in plain)
    assert max(openings.values()) > 20, "the control: one style has few openings"
    later = [[request[:15] for request in seed.data["requests"][1:]] for seed in seeds]
    assert all(len(set(requests)) == len(requests) for requests in later)
    assert 80 <= sum(any(purpose in seed.data["requests"][0] for purpose in PURPOSES) for seed in seeds) <= 120


def test_a_revision_shows_the_answers_and_their_faults_and_a_critic_the_labeled_turns(tmp_path: Path) -> None:
    settings = ["samples=4", "topology.max_revisions=2", "verifiers=[]", "task.turns=[2]", "task.system=1.0"]

    def answer(question: TeacherQuestion) -> str:
        revised = "have faults" in question.messages[-1].content
        if question.contract != "Review":
            return json.dumps(
                {"answers": ["Fog hides roads.", "It lifts by noon." if revised else "Fog hides roads again."]}
            )
        if "roads again" not in question.messages[-1].content:
            return json.dumps(GOOD)
        return json.dumps({**GOOD, "faults": [{"quote": "Fog hides roads again.", "fault": "says nothing new"}]})

    teacher = ScriptedTeacher(answer)
    samples = produce_scripted(plan_of(*settings, "task.styles={}"), teacher, tmp_path)
    assert {sample.answer for sample in samples} == {"Fog hides roads.\nIt lifts by noon."}
    revision = next(q for q in teacher.asked if "have faults" in q.messages[-1].content)
    assert revision.messages[-2].role == "assistant"
    assert "Fog hides roads again." in revision.messages[-2].content
    assert "says nothing new" in revision.messages[-1].content
    assert samples[0].seed.data["requests"][0] not in revision.messages[-1].content, (
        "the request comes before the answers"
    )
    review = next(q for q in teacher.asked if q.contract == "Review").messages[-1].content
    assert all(
        label in review for label in ("Rule for every answer:", "\nSystem: ", "\nUser: ", "\nAssistant: Fog hides")
    )


@pytest.mark.parametrize("reviewed", [True, False])
def test_a_critic_judges_the_topic_and_sees_what_words_say(reviewed: bool, tmp_path: Path) -> None:
    """Without one, the check refuses the same answer."""
    settings = ["samples=1", "topology.max_revisions=1", "task.turns=[1]", "task.constraints=[1]", "seeds.draw={}"]
    critic = '{type="teacher"}' if reviewed else "false"
    settings += ['verifiers=[{type="on_topic"}]', f"agents.critic={critic}"]

    def answer(question: TeacherQuestion) -> str:
        if question.contract == "Review":
            fault = {"quote": "Arrive early.", "fault": "does not say why"}
            again = "sound" in question.messages[-1].content
            return json.dumps(GOOD if again else {**GOOD, "faults": [fault], "advice": "Say why."})
        revised = len(question.messages) > 1 and "does not say why" in question.messages[-1].content
        return json.dumps({"answer": "Arrive early, for the best sound." if revised else "Arrive early."})

    teacher = ScriptedTeacher(answer)
    (sample,) = produce_scripted(plan_of(*settings), teacher, tmp_path)
    reviews = [question.messages[-1].content for question in teacher.asked if question.contract == "Review"]
    assert (sample.state is SampleStatus.kept) == reviewed == bool(reviews)
    hint = f"may be wrong: it has no word of the topic {sample.seed.data['topic']!r}"
    assert all(hint in review for review in reviews)
    (revision,) = [turn for turn in sample.turns if turn.revision and turn.agent == "generator"]
    if reviewed:
        assert revision.context[-1].content == json.dumps({"answer": "Arrive early."}), "a revision shows the draft"
        assert revision.asked.count("Say why.") == revision.asked.count("does not say why") == 1


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
