"""Which rows each arm has, from the candidates of the scripted teacher."""

import asyncio
import threading
from dataclasses import replace

import pytest

from agents.calls.agent_context import open_scratch_context
from agents.checks.registry import bind_checks
from agents.planning.seeds import RunSeeds
from agents.studies.held_out_evaluation import HeldOutResult, judge_by_check
from agents.topologies.sample_production import produce_samples
from core.config.agents import VerifierConfig
from core.errors import UsageError
from core.sample import Sample, TokenUsage
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.ablation.arms import ARMS, CandidatePool, CandidateRow, parse_arms, read_candidates
from plugins.ablation.task import parse_sizes

ROWS = 60
PLAN = load_recipe_plan("smoke", [f"samples={ROWS}"])


async def produce() -> list[Sample]:
    made: list[Sample] = []
    seeds = RunSeeds(PLAN, "arms0000")
    async with open_scratch_context(PLAN, threading.Event()) as context:
        await produce_samples(context, [seeds[i] for i in range(ROWS)], made.append)
    return sorted(made, key=lambda sample: sample.id)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return asyncio.run(produce())


@pytest.fixture(scope="module")
def candidates(samples: list[Sample]) -> list[CandidateRow]:
    return read_candidates(samples, PLAN, set())


def test_each_arm_is_a_part_of_the_one_before(candidates: list[CandidateRow]) -> None:
    pool = CandidatePool(candidates)
    counts = [pool.count(letter) for letter in "abcd"]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[1] > counts[2] > 0, "the scripted teacher fails in every way"
    drawn = [set(pool.draw(letter, ROWS, 1).ids) for letter in "abcd"]
    assert drawn[0] > drawn[1] > drawn[2] >= drawn[3]


def test_the_arm_of_checks_is_what_the_checks_say_of_each_candidate(
    samples: list[Sample], candidates: list[CandidateRow]
) -> None:
    """Asked again, apart from the run: recorded verdicts and checks agree on every candidate that was judged. What a check only
    hints to the critic refuses nothing.
    """
    judged = [one for one in samples if one.candidate.messages and one.state != "failed"]
    refusing = [bound for bound in PLAN.free_checks if not bound.check.hint]
    answers = [HeldOutResult(one.seed.index, "", "", None, "", (), one.candidate) for one in judged]
    by_check = asyncio.run(judge_by_check(refusing, [one.seed for one in judged], answers))
    again = {one.id for one, *passed in zip(judged, *by_check.values(), strict=True) if all(passed)}
    assert again == {one.id for one in candidates if one.passes_checks}


def test_two_checks_of_one_name_judge_together(samples: list[Sample]) -> None:
    """A rule that an answer breaks is not hidden by one that is kept."""
    checks, problems = bind_checks([VerifierConfig(type="on_topic")] * 2, PLAN.family.checks, PLAN.folder)
    assert not problems
    faults = (None, "refused")
    lenient, strict = (
        bound._replace(check=replace(bound.check, run=lambda *_, fault=fault: fault))
        for bound, fault in zip(checks, faults, strict=True)
    )
    judged = [one for one in samples if one.candidate.messages][:5]
    answers = [HeldOutResult(one.seed.index, "", "", None, "", (), one.candidate) for one in judged]
    seeds = [one.seed for one in judged]
    for both in ([strict, lenient], [lenient, strict]):
        assert asyncio.run(judge_by_check(both, seeds, answers)) == {"on_topic": [False] * 5}
    assert asyncio.run(judge_by_check([lenient], seeds, answers)) == {"on_topic": [True] * 5}


def test_a_teacher_that_counts_no_tokens_still_has_first_drafts(samples: list[Sample]) -> None:
    uncounted = [
        one.model_copy(update={"turns": [turn.model_copy(update={"usage": TokenUsage()}) for turn in one.turns]})
        for one in samples
    ]
    pool = CandidatePool(read_candidates(uncounted, PLAN, set()))
    assert pool.count("f") == pool.count("d")


def test_a_first_draft_is_what_the_generator_wrote_before_any_advice(
    samples: list[Sample], candidates: list[CandidateRow]
) -> None:
    revised = 0
    for sample, row in zip(samples, candidates, strict=True):
        if row.first is None:
            continue
        draft = next(turn for turn in reversed(sample.turns) if turn.agent == "generator" and turn.revision == 0)
        assert row.first[-1].content in draft.reply.replace("\\n", "\n").replace('\\"', '"')
        revised += row.last is not None and row.first != row.last
    assert revised, "some samples were revised"


def test_arms_of_a_seed_share_their_rows_and_the_placebo_draws_its_own(candidates: list[CandidateRow]) -> None:
    pool = CandidatePool(candidates)
    number = pool.count("d") // 2
    kept = {one.id for one in candidates if one.kept}
    dataset, drafts = pool.draw("d", number, 1), pool.draw("f", number, 1)
    assert dataset.ids == drafts.ids
    assert dataset.ids == pool.draw("d", number, 1).ids
    assert dataset.ids != pool.draw("d", number, 2).ids
    assert len(pool.draw("e", number, 1).ids) == number
    shares = [len(kept & set(pool.draw("e", number, seed).ids)) / number for seed in range(40)]
    assert sum(shares) / 40 == pytest.approx(len(kept) / pool.count("a"), abs=0.06), "verdicts are shuffled"


def test_refused_samples_are_paid_for_by_the_rows_that_are_left(candidates: list[CandidateRow]) -> None:
    pool = CandidatePool(candidates)
    whole = pool.draw("d", ROWS, 1)
    assert whole.tokens == sum(one.tokens for one in candidates)
    assert pool.draw("a", len(whole.ids), 1).tokens < whole.tokens
    drafts = pool.draw("g", pool.count("g"), 1)
    assert drafts.tokens == sum(one.draft_tokens for one in candidates), "drafts that cannot be parsed are paid for too"
    assert drafts.tokens < whole.tokens
    assert pool.count_equal_cost(len(whole.ids)) == pool.count("g"), "a draft costs less than a kept row"
    assert pool.count_equal_cost(1) > 1


def test_samples_that_are_held_out_are_in_no_arm(samples: list[Sample]) -> None:
    out = {one.id for one in samples[:10]}
    pool = CandidatePool(read_candidates(samples, PLAN, out))
    for letter in "abcdefg":
        assert not out & set(pool.draw(letter, ROWS, 1).ids)


def test_a_run_without_turns_has_no_first_drafts(samples: list[Sample]) -> None:
    bare = [one.model_copy(update={"turns": []}) for one in samples]
    with pytest.raises(UsageError, match="recorded no replies of its generator"):
        read_candidates(bare, PLAN, set())


def test_refused_drafts_are_those_paid_for_on_the_way_to_the_rows(
    samples: list[Sample], candidates: list[CandidateRow]
) -> None:
    pool = CandidatePool(candidates)
    few, dataset, shuffled, pairs = (pool.draw(letter, 9, 1) for letter in "kdlj")
    assert few.ids == dataset.ids == shuffled.ids == pairs.ids
    assert few.tokens == dataset.tokens
    kept, refused = ([text for text, verdict in few.judged if verdict is wanted] for wanted in (True, False))
    assert kept == few.rows
    faults = {
        turn[-1].content
        for one, row in zip(samples, candidates, strict=True)
        for turn in row.refused
        if any(not verdict.passed for verdict in one.verdicts)
    }
    assert refused
    assert {text[-1].content for text in refused} <= faults
    assert len(pool.draw("k", 3, 1).judged) < len(few.judged) < len(pool.draw("k", ROWS, 1).judged)
    assert sorted(text[-1].content for text, _ in shuffled.judged) == sorted(text[-1].content for text, _ in few.judged)
    assert sum(verdict for _, verdict in shuffled.judged) == len(kept)
    assert [verdict for _, verdict in shuffled.judged] != [verdict for _, verdict in few.judged], "the control"
    first = {one.id for one in samples if any(not each.passed and each.revision == 0 for each in one.verdicts)}
    assert {one.id: one.rejected for one in candidates if one.rejected} == {
        one.id: one.first for one in candidates if one.kept and one.id in first
    }
    worse = [(row, other) for row, other in zip(pairs.rows, pairs.rejected, strict=True) if other]
    assert all(row[:-1] == other[:-1] and row != other for row, other in worse)


@pytest.mark.parametrize("arms", ["a,x", "", "all"])
def test_unknown_arms_are_refused(arms: str) -> None:
    with pytest.raises(UsageError, match=r"^--arms: "):
        parse_arms(arms)


def test_arms_and_sizes_are_read_in_any_order() -> None:
    assert "".join(arm.letter for arm in parse_arms("E, a,d,a")) == "ade"
    assert set(ARMS) == set("abcdefghijkl")
    assert parse_sizes("45, all,45") == ["45", "all"]
    for wrong in ("many", "1", "-3"):
        with pytest.raises(UsageError, match=r"^--rows: "):
            parse_sizes(wrong)
