"""Shipped answers to the general panel: when they count, what they give, and that the models still give them."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from agents.studies.general_panel import PANEL_ANSWERS, GeneralPanel, build_general_panel
from core.config.recipe import BudgetConfig
from core.config.teachers import TeacherConfig
from core.project_files import PROJECT
from core.runs.student_records import PanelModelRecord
from core.sample import Spending
from core.storage.atomic_files import read_json
from core.weights.packaged_weights import find_embedded_teacher
from flows.evaluate.panel_evaluation import (
    PanelModels,
    evaluate_general_panel,
    find_shipped_answers,
    identify_answering,
)
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import CommandSession
from flows.terminal.text_format import say

TASKS = 64
EVERY = 4
"""This number of questions of the panel is one that both models are asked again."""
EQUAL_SHARE = 0.8
"""Of answers made again: how many are read at once changes a rounding, and so a word, now and then. Another model writes nearly
all of them otherwise, and another template has other questions."""


def embedded() -> tuple[GeneralPanel, TeacherConfig, Path]:
    plan = load_recipe_plan("constrained-instructions")
    weights = find_embedded_teacher()
    assert weights
    if identify_answering(weights) not in read_json(PANEL_ANSWERS):
        pytest.skip("another build of llama.cpp or another processor")
    return build_general_panel(plan, TASKS), plan.recipe.generator_teacher, weights


@pytest.mark.whole
def test_shipped_answers_are_judged_and_named_without_a_server(tmp_path: Path) -> None:
    panel, teacher, weights = embedded()
    session = CommandSession()
    session.quiet = True
    asked = PanelModels({"teacher": teacher}, {}, {"teacher": weights}, tmp_path, BudgetConfig(), None, Spending())
    record, answers, spent = asyncio.run(evaluate_general_panel(panel, asked, session))
    assert spent == Spending()
    assert not any(tmp_path.iterdir()), "no reply was asked for"
    [model] = record.models
    assert model.shipped
    assert 35 <= model.passed <= 50
    assert model.words > 50
    assert len(answers["teacher"].results) == TASKS + record.questions
    assert "by shipped answers" in say("panel_rates", record)
    asked_now = record.model_copy(update={"models": [PanelModelRecord(**{**model.model_dump(), "shipped": False})]})
    assert "shipped" not in say("panel_rates", asked_now)


@pytest.mark.whole
def test_shipped_answers_count_only_where_everything_agrees(tmp_path: Path) -> None:
    panel, teacher, weights = embedded()
    assert find_shipped_answers(panel, teacher, weights)
    plan = panel.plan
    (tmp_path / "other.gguf").write_bytes(weights.read_bytes()[:-1] + b"\0")
    (tmp_path / "cpuinfo").write_text("flags : avx2 fma")
    hotter = plan.recipe.agents.model_copy(
        update={"generator": plan.recipe.agents.generator.model_copy(update={"temperature": 0.1})}
    )
    assert not find_shipped_answers(panel, teacher, None)
    assert not find_shipped_answers(panel, teacher, tmp_path / "other.gguf"), "other weights"
    assert not find_shipped_answers(panel._replace(plan=plan.with_recipe(agents=hotter)), teacher, weights), "sampling"
    longer = build_general_panel(load_recipe_plan("constrained-instructions"), TASKS + 1)
    assert not find_shipped_answers(longer, teacher, weights), "a task more"
    changed = teacher.model_copy(update={"extra": {"repeat_penalty": 1.1}})
    assert not find_shipped_answers(panel, changed, weights), "another key of the requests"
    table = read_json(PANEL_ANSWERS)
    assert identify_answering(weights, engine="numpy") not in table, "another build"
    assert identify_answering(weights, engine="no-such-package") not in table, "no build"
    assert identify_answering(weights, processor=tmp_path / "cpuinfo") not in table, "another processor"


@pytest.mark.slow
def test_the_models_still_give_the_shipped_answers(tmp_path: Path) -> None:
    panel, _, _ = embedded()
    made, asked = tmp_path / "answers.json", len(panel.seeds) // EVERY
    script = [sys.executable, str(PROJECT / "data/panel/make_answers.py"), str(made), str(EVERY)]
    subprocess.run(script, check=True, cwd=PROJECT)
    now, shipped = read_json(made), read_json(PANEL_ANSWERS)
    assert now.keys() <= shipped.keys(), "make data/panel/answers.json again: data/panel/make_answers.py"
    assert all(len(answers) == asked for answers in now.values())
    pairs = [(answer, shipped[model][question]) for model, found in now.items() for question, answer in found.items()]
    equal = sum(answer == before for answer, before in pairs)
    assert equal >= EQUAL_SHARE * len(pairs), f"{equal} of {len(pairs)} answers are as shipped"
    first, second = now.values()
    assert sum(a == b for a, b in zip(first.values(), second.values(), strict=True)) < EQUAL_SHARE * asked, (
        "the control: each model has answers of its own"
    )
