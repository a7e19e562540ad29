"""The progress of production, and the stop for too many failures."""

import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from agents.calls.budget import RunBudget
from agents.planning.seeds import RunSeeds
from core.config.recipe import MAX_SAMPLES, BudgetConfig
from core.errors import RecipeError
from core.runs.run_dir import RunDir
from core.sample import Candidate, RejectionReason, Sample, SampleStatus, TokenUsage
from core.stop_signal import StopSignal
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run.production_progress import GroupStateCounts, ProductionProgress
from flows.run.shard_production import list_unfinished_shards
from flows.terminal.console import SESSION, UserInterrupt


@pytest.mark.parametrize(("limit", "failed", "stopped"), [(0.29, 29, False), (0.29, 30, True), (0.57, 57, False)])
def test_a_share_of_failures_at_its_limit_does_not_stop_a_run(
    limit: float, failed: int, stopped: bool, tmp_path: Path
) -> None:
    plan = load_recipe_plan("smoke", ["samples=100", f"max_failed={limit}"])
    stop, seeds = StopSignal(threading.Event()), RunSeeds(plan, "0" * 16)
    earlier: GroupStateCounts = Counter({("", "failed"): failed - 1})
    last = Sample(
        id="s", seed=seeds[0], state=SampleStatus.failed, reason=RejectionReason.contract, detail="generator",
        candidate=Candidate(messages=[]), revisions=0, turns=[], critiques=[], verdicts=[], usage=TokenUsage(),
    )  # fmt: skip
    with RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 1) as budget:
        ProductionProgress(plan.recipe, budget, stop, earlier=earlier, wanted={}, seeds=seeds).count_sample(last)
    assert (stop.reason is not None) == stopped


def test_after_a_stop_all_samples_are_counted_exactly_once(tmp_path: Path) -> None:
    plan = load_recipe_plan("smoke", ["keep=15", "samples=100"])
    earlier: GroupStateCounts = Counter({("", "kept"): 2, ("", "dropped"): 5, ("", "failed"): 1})
    stop, seeds = StopSignal(threading.Event()), RunSeeds(plan, "0" * 16)
    with RunBudget(BudgetConfig(), tmp_path / "spend.jsonl", 1) as budget:
        progress = ProductionProgress(plan.recipe, budget, stop, earlier=earlier, wanted=plan.recipe.goals, seeds=seeds)
        assert progress.format_progress().startswith("produce: 2/15 verified of 8 samples: 5 dropped, 1 failed; ")


def test_the_largest_run_is_listed_in_little_memory_and_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    plan = load_recipe_plan("smoke", [f"samples={MAX_SAMPLES}"])
    seeds, run = RunSeeds(plan, "0" * 16), RunDir(tmp_path)
    tracemalloc.start()
    try:
        shards = list_unfinished_shards(run, plan.recipe, seeds)
        assert tracemalloc.get_traced_memory()[1] < 256 * 2**20, "lists of indexes took 600 MiB"
    finally:
        tracemalloc.stop()
    assert sum(len(shard.missing) for shard in shards) == MAX_SAMPLES
    SESSION.stop.set()
    try:
        with pytest.raises(UserInterrupt):
            list_unfinished_shards(run, plan.recipe, seeds)
    finally:
        SESSION.stop.clear()
    with pytest.raises(RecipeError, match=r"samples: input should be less than or equal to 10000000"):
        load_recipe_plan("smoke", [f"samples={MAX_SAMPLES + 1}"])
