"""How far producing is, as it is told."""

import threading
from collections import Counter
from pathlib import Path

import pytest

from agents.brake import Brake
from agents.budget import Budget
from agents.seeds import Seeds
from core.recipe import BudgetConfig
from core.sample import Candidate, Reason, Sample, State, Usage
from flows.recipes import load
from flows.tally import States, Tally


@pytest.mark.parametrize(("limit", "failed", "stopped"), [(0.29, 29, False), (0.29, 30, True), (0.57, 57, False)])
def test_a_share_of_failures_at_its_limit_does_not_stop_a_run(
    limit: float, failed: int, stopped: bool, tmp_path: Path
) -> None:
    plan = load("smoke", ["samples=100", f"max_failed={limit}"])
    brake, seeds = Brake(threading.Event()), Seeds(plan, "0" * 16)
    earlier: States = Counter({("", "failed"): failed - 1})
    last = Sample(
        id="s", seed=seeds[0], state=State.failed, reason=Reason.contract, detail="generator", candidate=Candidate(messages=[]),
        revisions=0,
        turns=[], critiques=[], verdicts=[], usage=Usage(),
    )  # fmt: skip
    with Budget(BudgetConfig(), tmp_path / "spend.jsonl", 1) as budget:
        Tally(plan.recipe, budget, brake, earlier=earlier, wanted={}, seeds=seeds).count(last)
    assert (brake.reason is not None) == stopped


def test_after_a_stop_all_samples_are_told_and_each_once(tmp_path: Path) -> None:
    plan = load("smoke", ["keep=15", "samples=100"])
    earlier: States = Counter({("", "kept"): 2, ("", "dropped"): 5, ("", "failed"): 1})
    brake, seeds = Brake(threading.Event()), Seeds(plan, "0" * 16)
    with Budget(BudgetConfig(), tmp_path / "spend.jsonl", 1) as budget:
        tally = Tally(plan.recipe, budget, brake, earlier=earlier, wanted=plan.recipe.goals, seeds=seeds)
        assert tally.told().startswith("produce: 2/15 verified of 8 samples: 5 dropped, 1 failed; ")
