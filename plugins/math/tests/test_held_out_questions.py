"""Questions of seeds that are held out, what the general panel leaves out, and plain answers to them."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.families.base import RecipeFamily
from agents.planning.seeds import RunSeeds
from agents.studies.general_panel import build_general_panel
from agents.studies.held_out_evaluation import (
    has_fixed_questions,
    held_out_seeds,
    join_requests,
    require_held_out_seeds,
)
from core.errors import UsageError
from core.sample import Seed
from flows.recipes.recipe_catalog import load_recipe_plan, open_seeds
from plugins.math.families.reasoning import ReasoningFamily


def test_the_general_panel_asks_nothing_that_a_recipe_trains() -> None:
    gym = ["task.tasks={chain_sum=1,needle_haystack=1}"]
    kinds = {seed.data["kind"] for seed in build_general_panel(load_recipe_plan("reasoning", gym), 200).judged}
    assert not {"products", "needle_haystack"} & kinds
    kinds = {seed.data["kind"] for seed in build_general_panel(load_recipe_plan("arithmetic"), 200).judged}
    assert "products" not in kinds
    assert "needle_haystack" in kinds


def test_a_rare_category_of_the_quotas_is_found(tmp_path: Path) -> None:
    """Its row is the only one of 400, so most passes of a few seeds miss it."""
    rows = [{"question": f"What is {i}?", "answer": "1", "category": "rare" if i == 7 else "other"} for i in range(400)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = load_recipe_plan(
        "reasoning",
        [f"seeds.path={tmp_path}/rows.jsonl", "task={}", "samples=3", 'quotas={by="category",keep={rare=1}}'],
    )
    assert has_fixed_questions(plan)
    assert [seed.data["category"] for seed in held_out_seeds(plan, 1)] == ["rare"]


def test_a_fixed_pool_gives_each_request_once_and_too_few_are_one_sentence(tmp_path: Path) -> None:
    rows = [{"question": f"What is {i}?", "answer": "1"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = load_recipe_plan("reasoning", [f"seeds.path={tmp_path}/rows.jsonl", "task={}", "samples=6"])
    used = {join_requests(plan.family.questions(seed) or ()) for seed in RunSeeds(plan, "x")}
    seeds = require_held_out_seeds(plan, 4, used)
    assert len({seed.data["question"] for seed in seeds} - used) == 4
    with pytest.raises(UsageError, match="4 requests are left that no sample uses, and the evaluation asks 5"):
        require_held_out_seeds(plan, 5, used)


@pytest.mark.parametrize(("settings", "left"), [(["samples=6"], 4), (["samples=60"], 0), (["samples=60", "keep=3"], 7)])
def test_a_run_is_refused_before_it_starts_if_its_samples_leave_too_few_requests(
    settings: list[str], left: int, tmp_path: Path
) -> None:
    rows = [{"question": f"What is {i}?", "answer": "1"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = [f"seeds.path={tmp_path}/rows.jsonl", "task={}", *settings]
    if left:
        open_seeds(load_recipe_plan("reasoning", [*pool, f"student.evaluation.requests={left}"]))
    with pytest.raises(
        UsageError, match=f"{left} requests are left that no sample uses, and the evaluation asks {left + 1}"
    ):
        open_seeds(load_recipe_plan("reasoning", [*pool, f"student.evaluation.requests={left + 1}"]))


def reasoning(answers: list[str]) -> Any:
    family: RecipeFamily = ReasoningFamily()
    seed = Seed(id="x-0", data={"question": "How many?", "expected": "4"})
    assert [message.content for message in family.questions(seed) or ()] == ["How many?"]
    return family.build_answered(seed, answers)
