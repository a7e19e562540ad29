"""Models answer questions of held-out seeds in plain text, and the recipe's checks judge the answers."""

import asyncio
import threading
from collections import Counter
from pathlib import Path

import pytest

from agents.calls.budget import BudgetExhausted
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.studies.held_out_evaluation import HeldOutResult, evaluate_held_out, held_out_seeds, join_requests
from core.config.recipe import BudgetConfig
from core.config.teachers import TeacherConfig
from core.sample import Spending
from core.stop_signal import RunStopped
from flows.recipes.recipe_catalog import load_recipe_plan

WRITER = TeacherConfig(model="fake/writer")


def results_of(plan: RunPlan, number: int, model: TeacherConfig = WRITER) -> list[HeldOutResult]:
    seeds = held_out_seeds(plan, number)
    return asyncio.run(evaluate_held_out(plan, model, seeds, threading.Event(), lambda _: None))


def test_no_run_of_the_recipe_uses_a_held_out_seed() -> None:
    plan = load_recipe_plan("smoke")
    seeds = held_out_seeds(plan, 20)
    assert [seed.index for seed in seeds] == list(range(60, 80))
    used = [seed.data["instruction"] for seed in RunSeeds(plan, "run00000")]
    longer = RunSeeds(load_recipe_plan("smoke", ["samples=80"]), "run00000")
    assert [seed.data for seed in seeds] == [seed.data for seed in longer[60:]]
    assert not {seed.data["instruction"] for seed in seeds} & set(used)


@pytest.mark.parametrize(("samples", "first"), [(60, 20), (61, 21)])
def test_held_out_seeds_start_after_the_used_seeds_with_several_answers_per_seed(samples: int, first: int) -> None:
    alike = held_out_seeds(load_recipe_plan("smoke", [f"samples={samples}", "answers_per_seed=3"]), 5)
    assert [seed.index for seed in alike] == list(range(first, first + 5))
    assert len({seed.data["instruction"] for seed in alike}) == 5


def test_answers_of_any_model_are_judged_by_the_recipes_checks() -> None:
    plan = load_recipe_plan("smoke")
    results = results_of(plan, 40)
    assert [result.seed for result in results] == list(range(60, 100))
    faults = Counter(result.fault for result in results)
    assert 5 < faults[None] < 35
    assert set(faults) - {None} <= {"max_words", "words_between", "exact_sentences", "include_words", "on_topic"}
    assert all(result.evidence for result in results if result.fault)
    assert all("{" not in result.answer for result in results), "plain text, no JSON"
    assert results_of(plan, 40) == results


def test_an_evaluation_can_be_stopped() -> None:
    stop = threading.Event()
    plan = load_recipe_plan("smoke")
    with pytest.raises(RunStopped):
        asyncio.run(
            evaluate_held_out(
                plan, WRITER, held_out_seeds(plan, 300), stop, lambda done: stop.set() if done > 20 else None
            )
        )


@pytest.mark.parametrize(("journaled", "asked"), [(True, [10, 0]), (False, [10, 10])])
def test_what_an_interrupted_evaluation_spent_counts_when_it_is_repeated(
    journaled: bool, asked: list[int], tmp_path: Path
) -> None:
    """The control has no journal, and spends the rest of the budget again."""
    plan, spent = load_recipe_plan("smoke"), list[Spending]()
    for _ in asked:
        with pytest.raises(BudgetExhausted, match=r"budget\.calls = 40 is reached"):
            asyncio.run(
                evaluate_held_out(
                    plan, WRITER, held_out_seeds(plan, 30), threading.Event(), lambda _: None,
                    budget=BudgetConfig(calls=40), journal=tmp_path / "spend.jsonl" if journaled else None,
                    elsewhere=Spending(calls=30), on_spent=spent.append,
                )
            )  # fmt: skip
    assert [one.calls for one in spent] == asked


def test_a_request_that_was_drawn_twice_is_left_out() -> None:
    plan = load_recipe_plan("constrained-instructions", ["seed=8"])
    used = {join_requests(plan.family.questions(seed) or ()) for seed in RunSeeds(plan, "run00000")}
    seeds = held_out_seeds(plan, 400)
    twice = [seed.id for seed in seeds if join_requests(plan.family.questions(seed) or ()) in used]
    assert len(twice) == 2, "topics and rules are few"
    new = held_out_seeds(plan, 400, used)
    assert len(new) == 400
    assert [seed.id for seed in new][:398] == [seed.id for seed in seeds if seed.id not in twice]


def test_a_model_without_an_answer_does_not_pass() -> None:
    silent = TeacherConfig.model_validate({**WRITER.model_dump(), "extra": {"unavailable": 1.0}})
    assert {result.fault for result in results_of(load_recipe_plan("smoke"), 5, silent)} == {"no answer"}
