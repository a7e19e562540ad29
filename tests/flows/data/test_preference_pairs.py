"""Preference pairs: that each is two answers to one prompt, and that the worse one is verifiably so."""

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from agents.families import find_family
from agents.families.constrained_instructions import ConstrainedOptions
from agents.planning.seeds import RunSeeds
from core.config.recipe import Recipe
from core.runs.run_dir import open_run
from core.sample import (
    AgentTurn,
    Critique,
    RejectionReason,
    Sample,
    SampleStatus,
    Seed,
    TokenUsage,
    Verdict,
    parse_sample_index,
)
from core.storage.sample_files import build_message_type
from flows.clean.run_curation import curate_run
from flows.data.curated_run import read_kept_rows, split_rows
from flows.data.preference_pairs import NEAR_COPY_SIMILARITY, FoundPairs, find_preference_pairs, split_preference_pairs
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run import stages
from flows.run.shard_production import produce_and_curate

FAMILY = find_family("constrained_instructions")
WORDS = "bees carry nectar home while clover opens under a warm slow sky and nobody counts the hours".split()
REVISIONS = 2


def recipe_of(**changes: Any) -> Recipe:
    whole = {"name": "mine", "seeds": {"path": "x"}, "verifiers": [{"type": "constraints"}], "answers_per_seed": 4}
    return Recipe.model_validate({**whole, "dataset": {"formats": ["preference"]}, **changes})


def seed_of(number: int, *, per_seed: int = 4, same: bool = False) -> Seed:
    options = ConstrainedOptions(kinds={"max_words": 1}, constraints=(1,))
    row = {"topic": "bees" if same else f"bees {number // per_seed}", "words": ["hive", "nectar"]}
    return Seed(id=f"s-{number:06d}", data=FAMILY.condition(row, options, Random(1 if same else number // per_seed)))


def turn(revision: int, reply: str, attempt: int = 0) -> AgentTurn:
    return AgentTurn(
        agent="generator",
        revision=revision,
        attempt=attempt,
        teacher="fake/x",
        asked="?",
        reply=reply,
        usage=TokenUsage(),
    )


def reply(text: str) -> str:
    return json.dumps({"answer": text})


def verdict(revision: int, *, passed: bool, check: str = "max_words") -> Verdict:
    return Verdict(revision=revision, check=check, passed=passed, evidence=f"{check} of revision {revision}")


def critique(revision: int, *scores: int) -> Critique:
    return Critique(revision=revision, scores={f"r{i}": n for i, n in enumerate(scores)}, faults=[], advice="")


def sample(number: int, texts: Sequence[str], verdicts: Sequence[Verdict], **changes: Any) -> Sample:
    """A sample with the revisions `texts`; kept by default."""
    seed = changes.pop("seed", None) or seed_of(number)
    last = len(texts) - 1
    whole = {
        "id": seed.id, "seed": seed, "state": SampleStatus.kept, "revisions": last,
        "candidate": FAMILY.candidate(seed, FAMILY.reply_type(seed).model_validate({"answer": texts[-1]})),
        "turns": [turn(revision, reply(text)) for revision, text in enumerate(texts)],
        "critiques": [], "verdicts": list(verdicts), "usage": TokenUsage(),
    }  # fmt: skip
    return Sample.model_validate({**whole, **changes})


def kept(number: int, text: str, **changes: Any) -> Sample:
    return sample(number, [text], [verdict(0, passed=True)], **changes)


def dropped(number: int, text: str, **changes: Any) -> Sample:
    ended = {"state": SampleStatus.dropped, "reason": RejectionReason.verifier, "detail": "max_words"}
    return sample(number, [text], [verdict(0, passed=False)], **{**ended, **changes})


def found(samples: Sequence[Sample], **changes: Any) -> FoundPairs:
    return find_preference_pairs(samples, FAMILY, recipe_of(**changes))


def ids(made: FoundPairs) -> list[tuple[str, str]]:
    return [(pair.chosen.id, pair.rejected.id) for pair in made.pairs]


def random_samples(rng: Random, per_seed: int, count: int) -> list[Sample]:
    return [one for number in range(count) if (one := random_sample(rng, per_seed, number))]


def random_sample(rng: Random, per_seed: int, number: int) -> Sample | None:
    """Of any history that a run can leave: revised for a critic or a check, kept, dropped or failed; now and then none."""
    if rng.random() < 0.05:
        return None
    seed, revisions = seed_of(number, per_seed=per_seed, same=rng.random() < 0.2), rng.randrange(REVISIONS + 1)
    texts, verdicts, critiques = [], [], []
    state = rng.choice([SampleStatus.kept, SampleStatus.kept, SampleStatus.dropped, SampleStatus.failed])
    for revision in range(revisions + 1):
        texts.append(" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) if rng.random() < 0.8 else " ".join(WORDS))
        last = revision == revisions
        if rng.random() < 0.8:
            critiques.append(critique(revision, *(rng.randint(1, 5) for _ in range(rng.randint(1, 3)))))
        if last and state == SampleStatus.kept:
            verdicts += [verdict(revision, passed=True), verdict(revision, passed=True, check="on_topic")]
        elif rng.random() < 0.7:
            passed = last and rng.random() < 0.5
            verdicts += [verdict(revision, passed=passed or rng.random() < 0.3), verdict(revision, passed=passed)]
    ended = {"state": state, "reason": None if state == SampleStatus.kept else RejectionReason.verifier}
    return sample(number, texts, verdicts, seed=seed, critiques=critiques, **ended)


def mean(one: Sample, revision: int) -> float:
    scores = [score for c in one.critiques if c.revision == revision for score in c.scores.values()]
    return sum(scores) / len(scores) if scores else math.nan


def answer_of(one: Sample, revision: int) -> str:
    return str(json.loads(one.turns[revision].reply)["answer"])


def worse_ways(one: Sample, other: Sample, margin: float) -> Iterator[int]:
    """The revisions of `other` that may be paired with the last revision of `one`, found by brute force."""
    if other.state == SampleStatus.failed or other.candidate.messages[0] != one.candidate.messages[0]:
        return
    for revision in range(other.revisions + 1):
        mine, theirs = one.answer.split(), answer_of(other, revision).split()
        judged = [v.passed for v in other.verdicts if v.revision == revision]
        gap = mean(one, one.revisions) - mean(other, revision)
        wrong = judged and not all(judged)
        lower = judged and all(judged) and gap > margin - 1e-9
        if (wrong or lower) and SequenceMatcher(None, mine, theirs, autojunk=False).ratio() < NEAR_COPY_SIMILARITY:
            yield revision


@pytest.mark.parametrize("number", range(12))
def test_every_pair_of_random_runs_has_one_prompt_and_a_worse_answer(number: int) -> None:
    rng = Random(number)
    per_seed, margin, most = rng.choice([1, 2, 4, 5]), rng.choice([0.5, 1.0, 2.0]), rng.choice([1, 2, 3])
    samples = random_samples(rng, per_seed, 60)
    by_id = {one.id: one for one in samples}
    config = {"margin": margin, "pairs_per_prompt": most}
    made = found(samples, answers_per_seed=per_seed, preference=config)
    assert made == found(samples, answers_per_seed=per_seed, preference=config)
    assert ids(made) == sorted(ids(made))
    for pair in made.pairs:
        name, _, revision = pair.rejected.id.partition("/")
        chosen, other = by_id[pair.chosen.id], by_id[name]
        at = int(revision) if revision else other.revisions
        assert parse_sample_index(name) // per_seed == parse_sample_index(chosen.id) // per_seed
        assert chosen.state == SampleStatus.kept
        assert pair.chosen.prompt == pair.rejected.prompt == chosen.candidate.messages[:-1]
        assert pair.chosen.response == chosen.candidate.messages[-1:]
        assert [message.content for message in pair.rejected.response] == [answer_of(other, at)]
        assert at in set(worse_ways(chosen, other, margin))
        failed = [v for v in other.verdicts if v.revision == at and not v.passed]
        assert all(f"{v.check}: {v.evidence}" in pair.difference for v in failed)
        assert failed or pair.difference.startswith(f"critic: mean score {mean(chosen, chosen.revisions):.2f} against")
    prompts: dict[str, list[str]] = {}
    possible = set()
    for _, some in groupby(samples, key=lambda one: parse_sample_index(one.id) // per_seed):
        siblings = list(some)
        for one in siblings:
            if one.state == SampleStatus.kept:
                question = one.candidate.messages[0].content
                prompts.setdefault(question, [])
                if any(list(worse_ways(one, other, margin)) for other in siblings):
                    possible.add(question)
    for pair in made.pairs:
        prompts[pair.chosen.prompt[0].content].append(" ".join(pair.rejected.words))
    assert made.prompts == len(prompts)
    assert {question for question, rejected in prompts.items() if rejected} == possible, "where one can be, one is"
    assert all(len(set(rejected)) == len(rejected) <= most for rejected in prompts.values())
    aside = {pair.chosen.id for pair in made.pairs if rng.random() < 0.3}
    (train, validation), record = split_preference_pairs(made, aside)
    assert (len(train), len(validation)) == (record.train, record.validation)
    assert set(validation["chosen_id"]) == aside
    assert sum(record.differences.values()) == record.total == len(made.pairs)
    assert record.paired == len(possible)


def rows_of(samples: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """Kept rows of an id and a prompt each."""
    talk = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": "x"}] for _, prompt in samples]
    rows = {"id": [name for name, _ in samples], "messages": talk, "asked": [1] * len(samples)}
    return pl.DataFrame(rows, schema={"id": pl.String, "messages": pl.List(build_message_type()), "asked": pl.Int64})


@pytest.mark.parametrize("number", range(20))
def test_no_seed_and_no_prompt_is_on_both_sides_of_a_split(number: int) -> None:
    rng = Random(number)
    per_seed, count, share = rng.choice([1, 2, 4]), rng.randint(0, 60), rng.choice([0.05, 0.1, 0.3, 0.9])
    indexes = sorted(rng.sample(range(80), count))
    samples = [(f"s-{i:06d}", f"prompt {rng.randrange(200) if rng.random() < 0.3 else i // per_seed}") for i in indexes]
    kept = rows_of(samples)
    train, validation = split_rows(kept, share, number, per_seed)
    assert sorted([*train["id"], *validation["id"]]) == list(kept["id"])
    assert list(train["id"]) == sorted(train["id"])
    prompts = dict(samples)
    for of in (lambda name: parse_sample_index(name) // per_seed, prompts.__getitem__):
        assert not {of(name) for name in train["id"]} & {of(name) for name in validation["id"]}
    if len({index // per_seed for index in indexes}) == count == len({*prompts.values()}) > 1:
        assert len(validation) == max(1, min(round(count * share), count - 1))
    assert split_rows(kept, share, number, per_seed).validation.equals(validation)


def test_a_run_of_pairs_from_seeds_to_files(tmp_path: Path) -> None:
    """With the real graph and the scripted teacher: pairs load, and are on the side of their prompts."""
    from datasets import load_dataset

    plan = load_recipe_plan("smoke", ["samples=48", "answers_per_seed=4", 'dataset.formats=["preference","messages"]'])
    run = open_run(tmp_path, plan.recipe, plan.sources, folder=plan.folder, resume=False)
    seeds = RunSeeds(plan, run.read_manifest().digest)
    asyncio.run(produce_and_curate(run, plan, seeds, lambda: curate_run(run, plan.recipe, seeds)))
    manifest, parts = run.read_manifest(), split_rows(read_kept_rows(run), 0.25, 7, 4)
    assert stages.write_dataset(run, manifest, plan.recipe, parts) == []
    assert manifest.dataset.pairs is not None
    loaded = load_dataset(str(run.dataset), cache_dir=str(tmp_path / "hub"))
    conversations = load_dataset(str(run.dataset), "messages", cache_dir=str(tmp_path / "hub"))
    assert {side: len(rows) for side, rows in loaded.items()} == {
        side: rows for side in ("train", "validation") if (rows := getattr(manifest.dataset.pairs, side))
    }
    asked: dict[str, set[str]] = {"train": set(), "validation": set()}
    for side, rows in conversations.items():
        asked[side] |= {row["messages"][0]["content"] for row in rows}
        answers = {row["id"]: row["messages"][1] for row in rows}
        for pair in loaded.get(side, []):
            assert set(pair) == {"prompt", "chosen", "rejected", "difference", "chosen_id", "rejected_id"}
            assert pair["prompt"][0]["content"] in asked[side]
            assert pair["chosen"] == [answers[pair["chosen_id"]]]
            assert pair["rejected"] != pair["chosen"]
    assert not asked["train"] & asked["validation"]
    card = (run.dataset / "README.md").read_text()
    assert f"{manifest.dataset.pairs.total} pairs of {manifest.dataset.pairs.prompts} prompts" in card


@pytest.mark.parametrize(("margin", "pairs"), [(1.0, 1), (1.01, 0)])
def test_a_gap_as_wide_as_the_margin_makes_a_pair(margin: float, pairs: int) -> None:
    """In floating point, 13/3 - 10/3 is less than 1."""
    good = kept(0, "Bees hum at dawn.", critiques=[critique(0, 5, 4, 4)])
    fair = kept(1, "Some insects.", critiques=[critique(0, 4, 3, 3)])
    assert len(found([good, fair], preference={"margin": margin}).pairs) == pairs


def test_a_kept_sample_that_failed_a_check_is_not_preferred() -> None:
    """The baselines keep such samples."""
    voted_in = dropped(0, "Bees hum.", state=SampleStatus.kept, reason=None, detail="")
    assert found([voted_in, dropped(1, "honey honey")]).pairs == []
