"""How far producing is, as it is told."""

import threading
from collections import Counter
from pathlib import Path

from agents.brake import Brake
from agents.budget import Budget
from agents.seeds import Seeds
from core.recipe import BudgetConfig
from flows.recipes import load
from flows.tally import States, Tally


def test_after_a_stop_all_samples_are_told_and_each_once(tmp_path: Path) -> None:
    plan = load("smoke", ["keep=15", "samples=100"])
    earlier: States = Counter({("", "kept"): 2, ("", "dropped"): 5, ("", "failed"): 1})
    brake, seeds = Brake(threading.Event()), Seeds(plan, "0" * 16)
    with Budget(BudgetConfig(), tmp_path / "spend.jsonl", 1) as budget:
        tally = Tally(plan.recipe, budget, brake, earlier=earlier, wanted=plan.recipe.goals, seeds=seeds)
        assert tally.told().startswith("produce: 2/15 verified of 8 samples: 5 dropped, 1 failed; ")
