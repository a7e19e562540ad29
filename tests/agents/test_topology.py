import asyncio
import json
import os
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.produce import together
from agents.seeds import Seeds
from agents.teachers.base import CallFailed, Question
from agents.teachers.fake import FakeTeacher
from agents.topology import draw
from core.errors import ProviderError, StoreError, UsageError
from core.recipe import Recipe
from core.sample import Reason, Sample, State
from flows.recipes import load
from tests.scripted import Answer, Scripted, planned, produced, seeds_of

GOOD = {"scores": {"sense": 5, "style": 4}, "faults": [], "advice": "keep it"}


def recipe_of(*overrides: str) -> Recipe:
    always = ["samples=6", "task.kinds={max_words=1}", "task.constraints=[1]", 'verifiers=[{type="constraints"}]']
    once = ["agents.generator.max_repairs=1", "agents.critic.max_repairs=1"]
    return load("smoke", [*always, *once, *overrides]).recipe


def made(recipe: Recipe, answer: Answer, tmp_path: Path) -> tuple[list[Sample], Scripted]:
    teacher = Scripted(answer)
    return produced(recipe, teacher, tmp_path), teacher


def drafts(*texts: str) -> Answer:
    """A generator that writes `texts` one revision after the other, and a critic that likes all of them."""

    def answer(question: Question) -> str:
        if question.contract == "Review":
            return json.dumps(GOOD)
        asked = question.messages[-1].content
        return json.dumps({"answer": texts["Note:" in asked]})

    return answer


def test_a_good_draft_is_kept_as_it_is(tmp_path: Path) -> None:
    samples, teacher = made(recipe_of(), drafts("Bees fly."), tmp_path)
    assert {sample.state for sample in samples} == {State.kept}
    assert all(sample.candidate.messages[1].content == "Bees fly." for sample in samples)
    assert len(teacher.asked) == 12, "one draft and one critique each"


def test_a_failed_check_comes_back_as_advice_and_the_revision_is_verified(tmp_path: Path) -> None:
    samples, teacher = made(recipe_of(), drafts("word " * 60, "Bees fly."), tmp_path)
    for sample in samples:
        assert (sample.state, sample.revisions) == (State.kept, 1)
        assert [verdict.passed for verdict in sample.verdicts] == [False, True]
        assert [turn.agent for turn in sample.turns] == ["generator", "critic", "generator", "critic"]
    revision = next(question for question in teacher.asked if "Note:" in question.messages[-1].content)
    assert "it has 60 words, at most" in revision.messages[-1].content


def test_a_draft_that_never_passes_is_dropped_after_the_last_revision(tmp_path: Path) -> None:
    samples, _ = made(recipe_of("topology.max_revisions=2"), drafts("word " * 60, "word " * 50), tmp_path)
    for sample in samples:
        assert (sample.state, sample.reason, sample.detail) == (State.dropped, Reason.verifier, "max_words")
        assert sample.revisions == 2
        assert len(sample.verdicts) == 3


def test_a_low_score_is_answered_before_anything_is_verified(tmp_path: Path) -> None:
    def answer(question: Question) -> str:
        if question.contract == "Draft":
            return json.dumps({"answer": "Bees fly."})
        return json.dumps({"scores": {"style": 5, "sense": 1}, "faults": ["dull"], "advice": "be bright"})

    samples, _ = made(recipe_of("topology.max_revisions=1"), answer, tmp_path)
    for sample in samples:
        assert (sample.state, sample.reason, sample.detail) == (State.dropped, Reason.critic, "sense")
        assert sample.verdicts == []
        assert [critique.advice for critique in sample.critiques] == ["be bright", "be bright"]


def test_a_broken_critique_is_not_held_against_the_next_draft(tmp_path: Path) -> None:
    def answer(question: Question) -> str:
        if question.contract == "Draft":
            assert "not the JSON object" not in question.canonical
            return json.dumps({"answer": "Bees fly."})
        repaired = "not the JSON object" in question.canonical
        return json.dumps({**GOOD, "scores": {"sense": 1}}) if repaired else "no JSON"

    samples, _ = made(recipe_of("topology.max_revisions=1"), answer, tmp_path)
    for sample in samples:
        assert (sample.state, sample.reason) == (State.dropped, Reason.critic)
        tries = [(turn.agent, turn.attempt) for turn in sample.turns]
        assert tries == [("generator", 0), ("critic", 0), ("critic", 1)] * 2


def test_a_broken_reply_is_asked_for_again_and_never_reaches_the_next_agent(tmp_path: Path) -> None:
    def answer(question: Question) -> str:
        if question.contract == "Review":
            assert "Bees fly." in question.messages[-1].content
            return json.dumps(GOOD)
        repaired = "not the JSON object" in question.messages[-1].content
        return json.dumps({"answer": "Bees fly."}) if repaired else '{"answer": "Bees'

    samples, _ = made(recipe_of(), answer, tmp_path)
    for sample in samples:
        assert sample.state == State.kept
        assert [(turn.agent, turn.attempt) for turn in sample.turns] == [
            ("generator", 0),
            ("generator", 1),
            ("critic", 0),
        ]


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"answer": 3}', '{"answer": "x", "more": 1}', "\ud800"])
def test_a_reply_that_stays_broken_fails_its_sample_and_is_kept_for_the_record(text: str, tmp_path: Path) -> None:
    clean = text.encode("utf-8", "replace").decode()
    samples, _ = made(recipe_of(), lambda _: clean, tmp_path)
    for sample in samples:
        assert (sample.state, sample.reason) == (State.failed, Reason.contract)
        assert [turn.reply for turn in sample.turns] == [clean, clean]


def test_a_call_that_fails_costs_its_sample_only(tmp_path: Path) -> None:
    calls = iter(range(100))

    def answer(question: Question) -> str:
        if next(calls) == 0:
            raise CallFailed("status 500")
        return drafts("Bees fly.")(question)

    samples, _ = made(recipe_of(), answer, tmp_path)
    assert Counter(sample.state for sample in samples) == {State.kept: 5, State.failed: 1}
    assert [s.detail for s in samples if s.reason == Reason.provider] == ["status 500"]


def test_a_teacher_that_is_down_ends_the_run(tmp_path: Path) -> None:
    def answer(_: Question) -> str:
        raise ProviderError("down")

    with pytest.raises(ProviderError):
        made(recipe_of(), answer, tmp_path)


@pytest.mark.parametrize(("kind", "calls", "kept"), [("single", 6, 6), ("independent", 12, 0), ("centralized", 36, 0)])
def test_topologies_share_an_interface_and_differ_in_what_they_let_through(
    kind: str, calls: int, kept: int, tmp_path: Path
) -> None:
    def answer(question: Question) -> str:
        if question.contract == "Draft":
            return json.dumps({"answer": "word " * 60})
        return json.dumps({**GOOD, "scores": {"sense": 2 if kind == "independent" else 5}})

    samples, teacher = made(recipe_of(f"topology.kind={kind}"), answer, tmp_path)
    assert sum(sample.state == State.kept for sample in samples) == kept
    assert len(teacher.asked) == calls


@pytest.mark.parametrize(
    ("review", "draft", "state"),
    [
        ("no JSON", "word " * 60, State.kept),
        ("fails", "word " * 60, State.kept),
        ("no JSON", "Bees fly.", State.kept),
        (json.dumps({**GOOD, "scores": {"sense": 2}}), "Bees fly.", State.kept),
        (json.dumps({**GOOD, "scores": {"sense": 2}}), "word " * 60, State.dropped),
    ],
    ids=["a tie: broken is no vote", "a tie: silent is no vote", "two of two", "two of three", "one of three"],
)
def test_in_a_ballot_only_more_noes_than_ayes_drop_a_draft(
    review: str, draft: str, state: State, tmp_path: Path
) -> None:
    def answer(question: Question) -> str:
        if question.contract == "Review" and review == "fails":
            raise CallFailed("status 500")
        return json.dumps({"answer": draft}) if question.contract == "Draft" else review

    samples, _ = made(recipe_of("topology.kind=independent"), answer, tmp_path)
    assert {sample.state for sample in samples} == {state}
    assert [verdict.passed for verdict in samples[0].verdicts] == [draft == "Bees fly."]


def test_the_verifier_hears_nothing_of_the_writer_or_the_critic(tmp_path: Path) -> None:
    recipe = load("arithmetic", ["samples=8", "teachers.main.model=fake/arithmetic"]).recipe
    teacher = FakeTeacher(recipe.teachers["main"], "arithmetic")
    samples = produced(recipe, teacher, tmp_path)
    solved = [turn for sample in samples for turn in sample.turns if turn.agent == "verifier"]
    assert solved
    for sample in samples:
        for turn in sample.turns:
            if turn.agent == "verifier" and turn.attempt % 100 == 0:
                assert turn.asked == sample.candidate.fields["problem"] or turn.revision < sample.revisions


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    first, teacher = made(recipe_of(), drafts("word " * 60, "Bees fly."), tmp_path)
    ledger = tmp_path / "calls.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(teacher.asked)
    ledger.write_bytes(b"".join(lines[:10]) + lines[10][:30])  # a kill in the middle of the eleventh line
    second, again = made(recipe_of(), drafts("word " * 60, "Bees fly."), tmp_path)
    assert second == first
    assert len(again.asked) == len(lines) - 10


def test_a_sample_is_done_once_its_replies_are_on_the_disk_itself(
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
    samples = produced(recipe_of(), Scripted(drafts("Bees fly."), seconds=0.001), tmp_path, done=check)
    assert len(samples) == 6


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(StoreError, match="is damaged"):
        made(recipe_of(), drafts("x"), tmp_path)


def test_a_wish_to_stop_lets_calls_in_flight_end_and_sends_no_more(tmp_path: Path) -> None:
    stop = threading.Event()
    teacher = Scripted(lambda question: (stop.set(), drafts("Bees fly.")(question))[1])
    samples = produced(recipe_of("samples=40"), teacher, tmp_path, stop)
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
def test_seeds_that_cannot_be_used_are_named_with_their_line(content: Any, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=problem):
        Seeds(planned(recipe_of(f"seeds.path={path}")), "0" * 16)


def test_a_seed_may_hold_what_ends_a_line_in_unicode(tmp_path: Path) -> None:
    path, topic = tmp_path / "seeds.jsonl", "bees\u2028and\x85wasps"
    row = json.dumps({"topic": topic, "words": ["bee"]}, ensure_ascii=False)
    path.write_bytes(f"\ufeff{row}\r\n{row}\r\n".encode())
    assert {seed.data["topic"] for seed in seeds_of(recipe_of(f"seeds.path={path}"))} == {topic}


def test_seeds_are_the_same_each_time_and_reused_anew(tmp_path: Path) -> None:
    recipe = recipe_of("samples=400", "task.kinds={max_words=1,no_commas=1,include_words=3}")
    seeds = seeds_of(recipe)[:]
    assert seeds == seeds_of(recipe)[:]
    assert seeds_of(recipe)[217] == seeds[217]
    assert len({seed.id for seed in seeds}) == 400
    topics = Counter(seed.data["topic"] for seed in seeds)
    assert max(topics.values()) - min(topics.values()) <= 1
    assert len({seed.data["instruction"] for seed in seeds}) > 380
    other = seeds_of(recipe.model_copy(update={"seed": 8}))[:]
    assert [seed.data for seed in other] != [seed.data for seed in seeds]


def test_samples_of_the_next_release_are_not_asked_for_with_the_chance_of_this_ones(tmp_path: Path) -> None:
    plan, seen = planned(recipe_of("answers_per_seed=2")), set[int]()
    for first in (0, 3):  # six samples use three seeds
        teacher, folder = Scripted(drafts("Bees fly.")), tmp_path / str(first)
        folder.mkdir()
        produced(replace(plan, first=first), teacher, folder)
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
    assert {sample.state for sample in samples} == {State.kept}
    assert len(teacher.asked) == 80 - stored
    assert stored > 0


@pytest.mark.parametrize("score", [0, 6, 50])
def test_a_score_off_the_scale_is_no_critique(score: int, tmp_path: Path) -> None:
    def answer(question: Question) -> str:
        good = {"answer": "Bees fly."} if question.contract == "Draft" else {**GOOD, "scores": {"sense": score}}
        return json.dumps(good)

    samples, _ = made(recipe_of(), answer, tmp_path)
    assert {(sample.state, sample.reason) for sample in samples} == {(State.failed, Reason.contract)}
    assert all(sample.detail.startswith("critic: scores.sense") for sample in samples)


def test_after_a_bug_the_others_are_cancelled() -> None:
    ended = False

    async def waiting() -> None:
        nonlocal ended
        await asyncio.sleep(0.05)
        ended = True

    async def failing() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(together([failing(), waiting()]))
    assert not ended


def debate(*rounds: tuple[str, ...]) -> Answer:
    """Debaters that write these replies, a tuple for each round, in the order of their numbers."""
    asked: Counter[int] = Counter()

    def answer(question: Question) -> str:
        heard = [message for message in question.messages if "You are writer" in message.content]
        turn = bool(heard) or asked[0] >= len(rounds[0])
        asked[turn] += 1
        number = int(heard[0].content.split("You are writer ")[1][0]) if heard else (asked[0] - 1) % len(rounds[0]) + 1
        reply = rounds[turn][number - 1]
        if reply == "fails":
            raise CallFailed("status 500")
        return reply if reply.startswith("{") else json.dumps({"answer": reply})

    return answer


def debated(answer: Answer, tmp_path: Path, *overrides: str) -> tuple[Sample, Scripted]:
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
def test_in_a_debate_the_answer_that_most_gave_last_is_kept_unchecked(
    last: tuple[str, ...], kept: str, tmp_path: Path
) -> None:
    sample, teacher = debated(debate(("A.", "B.", "C."), last), tmp_path)
    assert (sample.state, sample.answer, sample.revisions) == (State.kept, kept, 1)
    assert len(teacher.asked) == 6
    assert [turn.agent for turn in sample.turns][:3] == ["debater 1", "debater 2", "debater 3"]
    assert (sample.critiques, sample.verdicts) == ([], [])


def test_a_debater_reads_its_own_draft_and_those_of_the_others_as_they_are(tmp_path: Path) -> None:
    _, teacher = debated(debate(("Bees fly.", '{"answer": "Bees', "fails"), ("A.", "B.", "C.")), tmp_path)
    first, second, third = teacher.asked[3:]
    assert first.messages[-2].content == '{"answer": "Bees fly."}'
    assert "You are writer 1." in first.messages[-1].content
    assert 'Writer 2:\n{"answer": "Bees\n' in first.messages[-1].content
    assert "Writer 3" not in first.messages[-1].content, "who did not answer said nothing"
    assert second.messages[-2].content == '{"answer": "Bees'
    assert [message.role for message in third.messages[-2:]] == ["assistant", "user"], "an example, and one request"
    assert "Bees fly." in third.messages[-1].content


@pytest.mark.parametrize(
    ("reply", "reason", "detail"),
    [('{"answer": "Bees', Reason.contract, "debater 1: "), ("fails", Reason.provider, "status 500")],
)
def test_a_debate_without_a_vote_fails_its_sample(reply: str, reason: Reason, detail: str, tmp_path: Path) -> None:
    sample, _ = debated(debate((reply,) * 3, (reply,) * 3), tmp_path)
    assert (sample.state, sample.reason) == (State.failed, reason)
    assert sample.detail.startswith(detail)


@pytest.mark.parametrize(("debaters", "rounds"), [(2, 0), (3, 1), (9, 5)])
def test_a_debate_takes_as_many_calls_as_its_longest_way_says(debaters: int, rounds: int, tmp_path: Path) -> None:
    overrides = f"topology.debaters={debaters}", f"topology.rounds={rounds}"
    sample, teacher = debated(drafts("Bees fly.", "Bees fly."), tmp_path, *overrides)
    assert sample.state == State.kept
    assert len({question.canonical for question in teacher.asked}) == debaters * (rounds + 1), "no two ask the same"
    plan = planned(recipe_of("topology.kind=decentralized", *overrides))
    assert plan.longest_way() == len(teacher.asked)


@pytest.mark.parametrize("kind", ["centralized", "single", "independent", "decentralized"])
def test_every_topology_can_be_drawn(kind: str) -> None:
    drawn = draw(kind)
    assert drawn.count("__start__ -->") == 1
    assert ("debater -->" in drawn) == (kind == "decentralized")
