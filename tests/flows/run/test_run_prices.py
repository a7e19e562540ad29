"""The prices of a run are those of its start, and the estimate of its recipe's preview is copied once."""

from pathlib import Path

import pytest

from agents.studies.run_estimation import PreviewedSamples, estimate_run
from core.config.recipe import recipe_digest
from core.runs.run_dir import RunDir
from core.sample import Candidate, Sample, SampleStatus, Seed, Spending, TokenUsage
from flows.data.estimate_files import store_estimate
from flows.recipes.recipe_catalog import hash_recipe_sources
from flows.run.pipeline import open_run_context
from flows.run.run_preparation import PreparedRun, prepare_run

RECIPE = """
name = "priced"
extends = "constrained-instructions"
student = false
agents.critic = false
[teachers.main]
model = "openai/big"
base_url = "http://localhost:1/v1"
"""
TABLE = """
date = 2026-01-02
source = "a contract"
[mine]
protocol = "openai"
base_url = "http://localhost:1"
models = { "*" = { input_price = PRICE, output_price = 2 } }
"""


def prepare(folder: Path, price: float, *settings: str, resume: bool = True) -> PreparedRun:
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "prices.toml").write_text(TABLE.replace("PRICE", str(price)))
    recipe = str(folder / "recipe.toml")
    return prepare_run(recipe, list(settings), str(folder / "runs"), resume=resume, distill=False)


def read_price(prepared: PreparedRun) -> tuple[float, float]:
    """What the run charges, and what its manifest says."""
    with open_run_context(prepared) as context:
        charged = context.plan.recipe.teachers["main"].prices()
        assert charged
        return charged.input, RunDir(context.run.path).read_manifest().prices["main"].input_price


def test_an_edited_table_does_not_change_a_started_run_but_an_edited_recipe_does(tmp_path: Path) -> None:
    budget = "budget.cost=1.0"
    assert read_price(prepare(tmp_path, 1, budget, resume=False)) == (1, 1)
    assert read_price(prepare(tmp_path, 5, budget)) == (1, 1)
    assert read_price(prepare(tmp_path, 5, budget, "teachers.main.input_price=3", "teachers.main.output_price=3")) == (
        3,
        3,
    )
    other = "seed=8"
    assert read_price(prepare(tmp_path, 5, budget, other, resume=False)) == (5, 5)


def test_a_run_copies_the_estimate_of_its_recipe_before_it_spends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prepared = prepare(tmp_path, 1, resume=False)

    def preview(calls: int) -> None:
        sample = Sample(
            id="preview0-000000", seed=Seed(id="preview0-000000", data={}), state=SampleStatus.kept,
            candidate=Candidate(messages=[]), revisions=0, turns=[], critiques=[], verdicts=[], usage=TokenUsage(calls=calls),
        )  # fmt: skip
        estimate = estimate_run(prepared.plan, PreviewedSamples([sample] * 2, 1.0, {}))
        store_estimate(recipe_digest(prepared.plan.recipe, hash_recipe_sources(prepared.plan)), estimate)

    preview(1)
    preview(2)
    with open_run_context(prepared) as context:
        estimate = context.manifest.estimate
        assert estimate
        assert estimate.calls.value == 2 * context.recipe.keep, "of the last preview"
        context.manifest.spent = Spending(calls=3)
        context.run.write_manifest(context.manifest)
    preview(3)
    with open_run_context(prepare(tmp_path, 1)) as context:
        assert context.manifest.estimate == estimate, "a later preview does not change it"
    with open_run_context(prepare(tmp_path, 1, "seed=8", resume=False)) as context:
        assert context.manifest.estimate is None, "another recipe"
