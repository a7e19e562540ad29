import asyncio
import json
import os
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import run_concurrently
from core.config.recipe import Recipe
from core.errors import ProviderError, StoreError, UsageError
from core.sample import RejectionReason, Sample, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import CallFailed, ChargeAccount, TeacherQuestion, TeacherReply
from tests.support.scripted_teacher import (
    Answer,
    ScriptedTeacher,
    build_test_plan,
    build_test_seeds,
    is_revision,
    produce_scripted,
)

GOOD = {"scores": {"sense": 5, "style": 4}, "faults": [], "advice": "keep it"}


def recipe_of(*overrides: str) -> Recipe:
    always = ["samples=6", "task.kinds={max_words=1}", "task.constraints=[1]", 'verifiers=[{type="constraints"}]']
    once = ["agents.generator.max_repairs=1", "agents.critic.max_repairs=1"]
    return load_recipe_plan("smoke", [*always, *once, *overrides]).recipe


def made(recipe: Recipe, answer: Answer, tmp_path: Path) -> tuple[list[Sample], ScriptedTeacher]:
    teacher = ScriptedTeacher(answer)
    return produce_scripted(recipe, teacher, tmp_path), teacher


def drafts(*texts: str) -> Answer:
    """A generator that writes `texts`, one per revision, and a critic that accepts all of them."""

    def answer(question: TeacherQuestion) -> str:
        if question.contract == "Review":
            return json.dumps(GOOD)
        asked = question.messages[-1].content
        return json.dumps({"answer": texts[is_revision(asked)]})

    return answer


def test_a_good_draft_is_kept_unchanged(tmp_path: Path) -> None:
    samples, teacher = made(recipe_of(), drafts("Bees fly."), tmp_path)
    assert {sample.state for sample in samples} == {SampleStatus.kept}
    assert all(sample.candidate.messages[1].content == "Bees fly." for sample in samples)
    assert len(teacher.asked) == 12, "one draft and one critique each"


def test_a_failed_check_becomes_advice_and_the_revision_is_verified(tmp_path: Path) -> None:
    samples, teacher = made(recipe_of(), drafts("word " * 60, "Bees fly."), tmp_path)
    for sample in samples:
        assert (sample.state, sample.revisions) == (SampleStatus.kept, 1)
        assert [verdict.passed for verdict in sample.verdicts] == [False, True]
        assert [turn.agent for turn in sample.turns] == ["generator", "generator", "critic"]
    revision = next(question for question in teacher.asked if is_revision(question.messages[-1].content))
    assert "it has 60 words, at most" in revision.messages[-1].content


def test_a_draft_that_never_passes_is_dropped_after_the_last_revision(tmp_path: Path) -> None:
    samples, _ = made(recipe_of("topology.max_revisions=2"), drafts("word " * 60, "word " * 50), tmp_path)
    for sample in samples:
        assert (sample.state, sample.reason, sample.detail) == (
            SampleStatus.dropped,
            RejectionReason.verifier,
            "max_words",
        )
        assert sample.revisions == 2
        assert len(sample.verdicts) == 3


def review_of(*faults: tuple[str, str], score: int = 5, advice: str = "") -> str:
    quoted = [{"quote": quote, "fault": fault} for quote, fault in faults]
    return json.dumps({"faults": quoted, "scores": {"sense": score, "style": 4}, "advice": advice})


def review_once(review: str, texts: tuple[str, str] = ("Bees fly.", "Bees hum.")) -> Answer:
    """A generator with two drafts, and a critic that finds a fault in the first alone."""

    def answer(question: TeacherQuestion) -> str:
        if question.contract != "Review":
            return json.dumps({"answer": texts[is_revision(question.messages[-1].content)]})
        return review if f"Assistant: {texts[0]}" in question.messages[-1].content else review_of()

    return answer


def test_a_quoted_fault_leads_to_a_revision_whatever_the_scores(tmp_path: Path) -> None:
    samples, teacher = made(recipe_of(), review_once(review_of((" “bees  FLY…” ", "they also walk"))), tmp_path)
    for sample in samples:
        assert (sample.state, sample.revisions, sample.answer) == (SampleStatus.kept, 1, "Bees hum.")
        assert [critique.quoted_faults for critique in sample.critiques] == [
            [f"“{' “bees  FLY…” '}”: they also walk"],
            [],
        ]
    notes = [asked.messages[-1].content for asked in teacher.asked if is_revision(asked.messages[-1].content)]
    assert len(notes) == 6
    assert all("they also walk" in note for note in notes)


@pytest.mark.parametrize(
    "review",
    [
        review_of(("Wasps fly", "there are no wasps")),
        review_of(("", "dull")),
        json.dumps({"scores": {"sense": 5, "style": 4}, "faults": ["dull"], "advice": ""}),
    ],
    ids=["a quote of what is not there", "no quote", "a plain text"],
)
def test_a_fault_without_a_true_quote_is_recorded_and_the_scores_decide(review: str, tmp_path: Path) -> None:
    samples, _ = made(recipe_of(), review_once(review), tmp_path)
    for sample in samples:
        assert (sample.state, sample.revisions) == (SampleStatus.kept, 0)
        assert (len(sample.critiques[0].faults), sample.critiques[0].quotes) == (1, [])


def test_a_broken_reply_is_repaired_and_never_reaches_the_next_agent(tmp_path: Path) -> None:
    def answer(question: TeacherQuestion) -> str:
        if question.contract == "Review":
            assert "Bees fly." in question.messages[-1].content
            return json.dumps(GOOD)
        repaired = "not the JSON object" in question.messages[-1].content
        return json.dumps({"answer": "Bees fly."}) if repaired else '{"answer": "Bees'

    samples, _ = made(recipe_of(), answer, tmp_path)
    for sample in samples:
        assert sample.state == SampleStatus.kept
        assert [(turn.agent, turn.attempt) for turn in sample.turns] == [
            ("generator", 0),
            ("generator", 1),
            ("critic", 0),
        ]


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"answer": 3}', '{"answer": "x", "more": 1}', "\ud800"])
def test_a_reply_that_stays_broken_fails_its_sample_and_is_recorded(text: str, tmp_path: Path) -> None:
    clean = text.encode("utf-8", "replace").decode()
    samples, _ = made(recipe_of(), lambda _: clean, tmp_path)
    for sample in samples:
        assert (sample.state, sample.reason) == (SampleStatus.failed, RejectionReason.contract)
        assert [turn.reply for turn in sample.turns] == [clean, clean]


def test_a_call_that_fails_costs_its_sample_only(tmp_path: Path) -> None:
    calls = iter(range(100))

    def answer(question: TeacherQuestion) -> str:
        if next(calls) == 0:
            raise CallFailed("status 500")
        return drafts("Bees fly.")(question)

    samples, _ = made(recipe_of(), answer, tmp_path)
    assert Counter(sample.state for sample in samples) == {SampleStatus.kept: 5, SampleStatus.failed: 1}
    assert [s.detail for s in samples if s.reason == RejectionReason.provider] == ["status 500"]


def test_a_teacher_that_is_down_ends_the_run(tmp_path: Path) -> None:
    def answer(_: TeacherQuestion) -> str:
        raise ProviderError("down")

    with pytest.raises(ProviderError):
        made(recipe_of(), answer, tmp_path)


@pytest.mark.parametrize(("kind", "calls", "kept"), [("single", 6, 6), ("independent", 12, 0), ("centralized", 18, 0)])
def test_topologies_share_an_interface_and_differ_in_the_samples_they_keep(
    kind: str, calls: int, kept: int, tmp_path: Path
) -> None:
    def answer(question: TeacherQuestion) -> str:
        if question.contract == "Draft":
            return json.dumps({"answer": "word " * 60})
        return json.dumps({**GOOD, "scores": {"sense": 2 if kind == "independent" else 5, "style": 4}})

    samples, teacher = made(recipe_of(f"topology.kind={kind}"), answer, tmp_path)
    assert sum(sample.state == SampleStatus.kept for sample in samples) == kept
    assert len(teacher.asked) == calls


@pytest.mark.parametrize(
    ("review", "draft", "state"),
    [
        ("no JSON", "word " * 60, SampleStatus.kept),
        ("fails", "word " * 60, SampleStatus.kept),
        ("no JSON", "Bees fly.", SampleStatus.kept),
        (json.dumps({**GOOD, "scores": {"sense": 2, "style": 4}}), "Bees fly.", SampleStatus.kept),
        (json.dumps({**GOOD, "scores": {"sense": 2, "style": 4}}), "word " * 60, SampleStatus.dropped),
    ],
    ids=["a tie: broken is no vote", "a tie: silent is no vote", "two of two", "two of three", "one of three"],
)
def test_in_a_ballot_only_more_noes_than_ayes_drop_a_draft(
    review: str, draft: str, state: SampleStatus, tmp_path: Path
) -> None:
    def answer(question: TeacherQuestion) -> str:
        if question.contract == "Review" and review == "fails":
            raise CallFailed("status 500")
        return json.dumps({"answer": draft}) if question.contract == "Draft" else review

    samples, _ = made(recipe_of("topology.kind=independent"), answer, tmp_path)
    assert {sample.state for sample in samples} == {state}
    assert [verdict.passed for verdict in samples[0].verdicts] == [draft == "Bees fly."]


def test_an_answered_call_is_not_repeated(tmp_path: Path) -> None:
    first, teacher = made(recipe_of(), drafts("word " * 60, "Bees fly."), tmp_path)
    ledger = tmp_path / "calls.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(teacher.asked)
    ledger.write_bytes(b"".join(lines[:10]) + lines[10][:30])  # a kill in the middle of the eleventh line
    second, again = made(recipe_of(), drafts("word " * 60, "Bees fly."), tmp_path)
    assert second == first
    assert len(again.asked) == len(lines) - 10


def test_a_sample_is_done_once_its_replies_are_synced_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, to_disk, ledger = [0], os.fdatasync, tmp_path / "calls.jsonl"

    def spy(file: int) -> None:
        size = os.fstat(file).st_size
        to_disk(file)
        safe.append(size)

    def check(sample: Sample) -> None:
        written = ledger.read_bytes()[: safe[-1]].decode()
        assert written.count(f'{{"key": "{sample.seed.index}/') == len(sample.turns) == 2

    monkeypatch.setattr(os, "fdatasync", spy)
    samples = produce_scripted(recipe_of(), ScriptedTeacher(drafts("Bees fly."), seconds=0.001), tmp_path, done=check)
    assert len(samples) == 6


def test_a_stop_lets_calls_in_flight_end_and_sends_no_more(tmp_path: Path) -> None:
    stop = threading.Event()
    teacher = ScriptedTeacher(lambda question: (stop.set(), drafts("Bees fly.")(question))[1])
    samples = produce_scripted(recipe_of("samples=40"), teacher, tmp_path, stop)
    assert samples == []
    asked = len(teacher.asked)
    assert 0 < asked <= 6, "as many as there are workers"
    assert len((tmp_path / "calls.jsonl").read_bytes().splitlines()) == asked


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "the seeds cannot be read"),
        ("", "has no seeds"),
        ('{"topic": "x"', ":1: is not JSON"),
        ("[1]", ":1: must be a JSON object"),
        ('{"topic": "x"}', ":1: a seed of constrained_instructions needs the key 'words'"),
        (
            '{"topic": "x", "words": []}',
            ":1: a seed of .* needs the key 'words' with a list of words, one at least, not '\\[]'",
        ),
        ('{"topic": "x", "words": "lamp"}', ":1: .* with a list of words, one at least, not 'lamp'"),
        ('{"topic": "x", "words": [1, null]}', ":1: .* with a list of words"),
        ('{"topic": 5, "words": ["a"]}', ":1: .* needs the key 'topic' with a text, not '5'"),
        (b'{"topic": "x", "words": ["a"]}\n"\xff"', ":2: is not UTF-8 text"),
    ],
)
def test_unusable_seeds_are_reported_with_their_line(content: Any, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=problem):
        RunSeeds(build_test_plan(recipe_of(f"seeds.path={path}")), "0" * 16)


def test_seeds_are_reproducible_and_rows_are_reused_with_new_conditions(tmp_path: Path) -> None:
    recipe = recipe_of("samples=400", "task.kinds={max_words=1,no_commas=1,include_words=3}")
    seeds = build_test_seeds(recipe)[:]
    assert seeds == build_test_seeds(recipe)[:]
    assert build_test_seeds(recipe)[217] == seeds[217]
    assert len({seed.id for seed in seeds}) == 400
    topics = Counter(seed.data["topic"] for seed in seeds)
    assert max(topics.values()) - min(topics.values()) <= 1
    assert len({seed.data["instruction"] for seed in seeds}) > 380
    other = build_test_seeds(recipe.model_copy(update={"seed": 8}))[:]
    assert [seed.data for seed in other] != [seed.data for seed in seeds]


def test_samples_of_the_next_release_use_other_random_seeds(tmp_path: Path) -> None:
    plan, seen = build_test_plan(recipe_of("answers_per_seed=2")), set[int]()
    for first in (0, 3):  # six samples use three seeds
        teacher, folder = ScriptedTeacher(drafts("Bees fly.")), tmp_path / str(first)
        folder.mkdir()
        produce_scripted(replace(plan, first_seed=first), teacher, folder)
        seen |= {question.seed for question in teacher.asked if question.contract == "Draft"}
    assert len(seen) == 12


def test_a_full_disk_stops_before_more_is_paid_for_and_nothing_stored_is_lost(tmp_path: Path) -> None:
    import resource

    recipe = recipe_of("samples=40")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            made(recipe, drafts("Bees fly."), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    stored = (tmp_path / "calls.jsonl").read_bytes().count(b"\n")
    samples, teacher = made(recipe, drafts("Bees fly."), tmp_path)
    assert {sample.state for sample in samples} == {SampleStatus.kept}
    assert len(teacher.asked) == 80 - stored
    assert stored > 0


def test_after_a_bug_the_others_are_cancelled() -> None:
    cancelled = False

    async def waiting() -> None:
        nonlocal cancelled
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled = True
            raise

    async def failing() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_concurrently([failing(), waiting()]))
    assert cancelled


def debate(*rounds: tuple[str, ...]) -> Answer:
    """Debaters that write these replies, a tuple for each round, in the order of their numbers."""
    asked: Counter[int] = Counter()

    def answer(question: TeacherQuestion) -> str:
        heard = [message for message in question.messages if "You are writer" in message.content]
        turn = bool(heard) or asked[0] >= len(rounds[0])
        asked[turn] += 1
        number = int(heard[0].content.split("You are writer ")[1][0]) if heard else (asked[0] - 1) % len(rounds[0]) + 1
        reply = rounds[turn][number - 1]
        if reply == "fails":
            raise CallFailed("status 500")
        return reply if reply.startswith("{") else json.dumps({"answer": reply})

    return answer


def debated(answer: Answer, tmp_path: Path, *overrides: str) -> tuple[Sample, ScriptedTeacher]:
    samples, teacher = made(recipe_of("topology.kind=decentralized", "samples=1", *overrides), answer, tmp_path)
    return samples[0], teacher


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        (("Bees fly.", "Bees hum.", "Bees hum."), "Bees hum."),
        (("Bees fly.", "Bees hum.", "bees  HUM."), "Bees hum."),
        (("Bees fly.", "Bees hum.", "Bees sting."), "Bees fly."),
        (('{"answer": "Bees', '{"answer": "Bees', "Bees hum."), "Bees hum."),
        (("fails", "Bees hum.", "Bees sting."), "Bees hum."),
        (("word " * 60, "word " * 60, "Bees hum."), ("word " * 60).strip()),
    ],
    ids=[
        "a majority",
        "spaces and case",
        "all differ: the first",
        "broken is no vote",
        "silent is no vote",
        "unchecked",
    ],
)
def test_a_debate_keeps_the_most_frequent_last_answer_unchecked(
    last: tuple[str, ...], kept: str, tmp_path: Path
) -> None:
    sample, teacher = debated(debate(("A.", "B.", "C."), last), tmp_path)
    assert (sample.state, sample.answer, sample.revisions) == (SampleStatus.kept, kept, 1)
    assert len(teacher.asked) == 6
    assert [turn.agent for turn in sample.turns][:3] == ["debater 1", "debater 2", "debater 3"]
    assert (sample.critiques, sample.verdicts) == ([], [])


def test_a_debate_takes_its_maximum_number_of_calls(tmp_path: Path) -> None:
    sample, teacher = debated(drafts("Bees fly.", "Bees fly."), tmp_path)
    assert sample.state == SampleStatus.kept
    assert len({question.canonical for question in teacher.asked}) == 6, "no two ask the same"
    plan = build_test_plan(recipe_of("topology.kind=decentralized"))
    assert plan.max_calls_per_sample() == len(teacher.asked)


def test_after_the_last_revision_the_scores_decide_about_a_quoted_fault(tmp_path: Path) -> None:
    for score, state in ((5, SampleStatus.kept), (2, SampleStatus.dropped)):
        fault = review_of(("Bees", "there are wasps too"), score=score)
        answer = review_once(fault, ("Bees fly.", "Bees fly."))
        samples, _ = made(recipe_of("topology.max_revisions=1"), answer, tmp_path / str(score))
        assert {(sample.state, sample.revisions) for sample in samples} == {(state, 1)}


def test_the_error_for_a_damaged_ledger_names_it(tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(StoreError, match="is damaged"):
        made(recipe_of(), drafts("x"), tmp_path)


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
