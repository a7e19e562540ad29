"""The thinking of the reply that a candidate comes from, after repairs and revisions."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.sample import RejectionReason, Sample, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import ChargeAccount, TeacherQuestion, TeacherReply
from tests.support.scripted_teacher import Answer, ScriptedTeacher, is_revision, produce_scripted

GOOD = {"scores": {"sense": 5, "style": 4}, "faults": [], "advice": "keep it"}
SETTINGS = ["samples=2", "task.kinds={max_words=1}", "task.constraints=[1]", 'verifiers=[{type="constraints"}]',
            "agents.generator.max_repairs=1", "agents.critic.max_repairs=1"]  # fmt: skip


class ThinkingTeacher(ScriptedTeacher):
    """Thinks something else before each reply."""

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        reply = await super().reply(question, rank, account)
        return reply.model_copy(update={"reasoning": f"I consider {reply.text}"})


def make_samples(answer: Answer, folder: Path, *settings: str, thinks: bool = True) -> list[Sample]:
    teacher = (ThinkingTeacher if thinks else ScriptedTeacher)(answer)
    return produce_scripted(load_recipe_plan("smoke", [*SETTINGS, *settings]).recipe, teacher, folder)


def write_drafts(first: str, repaired: str, revised: str) -> Answer:
    """Raw replies of the generator: the first, its repair, and the revision after a check's advice."""

    def answer(question: TeacherQuestion) -> str:
        if question.contract == "Review":
            return json.dumps(GOOD)
        if is_revision(question.messages[-1].content):
            return revised
        return repaired if len([m for m in question.messages if m.content == first]) else first

    return answer


def draft(text: str) -> str:
    return json.dumps({"answer": text})


def test_the_thinking_is_that_of_the_repaired_and_revised_reply(tmp_path: Path) -> None:
    long, short = draft("word " * 60), draft("Bees fly.")
    for number, (drafts, kept) in enumerate(
        [(("no JSON", short, ""), short), ((long, "", short), short), (("no JSON", long, short), short)]
    ):
        (tmp_path / str(number)).mkdir()
        for sample in make_samples(write_drafts(*drafts), tmp_path / str(number)):
            assert sample.state == SampleStatus.kept, sample.detail
            asked, answered = sample.candidate.messages
            assert (asked.reasoning, answered.content) == (None, "Bees fly.")
            assert answered.reasoning == f"I consider {kept}"
            assert "I consider" not in sample.answer


@pytest.mark.parametrize("kind", ["single", "independent", "decentralized"])
def test_every_topology_keeps_the_thinking(kind: str, tmp_path: Path) -> None:
    (sample, *_) = make_samples(lambda q: json.dumps(GOOD) if q.contract == "Review" else draft("Bees fly."), tmp_path,
                                f"topology.kind={kind}")  # fmt: skip
    assert sample.candidate.thinking == f"I consider {draft('Bees fly.')}"


@pytest.mark.parametrize("tag", ["<think>", "</think>", "[THINK]", "</thinking>", "<thought>", "</reasoning>"])
def test_thinking_inside_a_reply_is_repaired_and_never_an_answer(tag: str, tmp_path: Path) -> None:
    leak, clean = draft(f"{tag} I could say: Bees fly."), draft("Bees fly.")

    def count(samples: list[Sample]) -> list[Any]:
        return [(sample.state, sample.reason, sample.answer) for sample in samples]

    repaired = make_samples(write_drafts(leak, clean, ""), tmp_path)
    assert count(repaired) == [(SampleStatus.kept, None, "Bees fly.")] * 2
    assert f"it contains {tag}" in repaired[0].turns[1].asked, "the repair names the tag"
    (tmp_path / "again").mkdir()
    never = make_samples(write_drafts(leak, leak, ""), tmp_path / "again")
    assert count(never) == [(SampleStatus.failed, RejectionReason.contract, "")] * 2
