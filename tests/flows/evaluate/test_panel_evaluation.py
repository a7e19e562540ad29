"""The general panel on the embedded model: it loses nothing against itself, and surely with its layers in another order."""

import asyncio
from functools import cache
from pathlib import Path

import pytest

from agents.studies.general_panel import MAX_TOKENS, build_general_panel
from agents.studies.panel_tasks import OPEN
from core.config.recipe import BudgetConfig
from core.runs.student_records import GeneralPanelRecord
from core.sample import Spending
from flows.data.student_files import configure_student_as_teacher
from flows.evaluate.panel_evaluation import PanelModels, evaluate_general_panel
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import CommandSession
from students.comparison import measure_answer_divergence, write_embedded_teacher
from students.gguf_export import export_gguf, read_student
from tests.students.conftest import conversations, one_thread, saved, tiny_llama, tiny_tokenizer

TASKS = 18


@pytest.mark.slow
@pytest.mark.usefixtures(one_thread.__name__)
def test_a_model_loses_nothing_against_itself_and_surely_with_its_layers_reversed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAX_TOKENS, OPEN, 40)
    plan = load_recipe_plan("constrained-instructions")
    panel = build_general_panel(plan, TASKS)
    start, same, broken = (tmp_path / name / "start" for name in ("start", "same", "broken"))
    write_embedded_teacher(start)
    model, tokenizer = read_student(start)
    saved(model, tokenizer, same)
    model.model.layers = model.model.layers[::-1]
    saved(model, tokenizer, broken)
    session = CommandSession()
    session.quiet = True

    @cache
    def export(folder: Path) -> Path:
        return export_gguf(folder, "q8_0").path

    def compare(student: Path) -> tuple[GeneralPanelRecord, dict[str, list[str]]]:
        folders = {"student": student, "start": start}
        models = {
            role: configure_student_as_teacher(export(folder), plan.recipe.generator_teacher)
            for role, folder in folders.items()
        }
        asked = PanelModels(models, folders, tmp_path / "cache", BudgetConfig(), None, Spending())
        record, answers, spent = asyncio.run(evaluate_general_panel(panel, asked, session))
        assert spent == Spending(), "the teacher was not asked"
        assert GeneralPanelRecord.model_validate_json(record.model_dump_json()) == record
        return record, {role: [result.answer for result in found.results] for role, found in answers.items()}

    record, answers = compare(same)
    assert answers["student"] == answers["start"], "a file of the same weights and name finds its replies in the cache"
    assert record.comparison
    assert record.divergence
    assert record.comparison.difference.value == 0
    assert record.comparison.conclusion == "no certain difference"
    assert record.divergence.value < 1e-4
    before = record.find_model("start")
    assert before
    assert 0.15 < before.pass_rate.value < 0.85
    assert before.words > 20

    record, answers = compare(broken)
    assert record.comparison
    assert record.divergence
    assert record.comparison.conclusion == "worse"
    assert record.divergence.low > 1


@pytest.mark.usefixtures(one_thread.__name__)
def test_the_divergence_grows_with_the_change_of_the_weights(tmp_path: Path) -> None:
    import torch

    tokenizer = tiny_tokenizer()
    model = tiny_llama(len(tokenizer))
    start = saved(model, tokenizer, tmp_path / "start")
    found = []
    for step in (0.0, 0.02, 0.1):
        with torch.no_grad():
            for weight in model.parameters():
                weight += step * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        found.append(measure_answer_divergence(start, saved(model, tokenizer, tmp_path / f"{step}"), conversations()))
    nothing, little, much = found
    assert len(nothing) == len(conversations())
    assert max(nothing) < 1e-5
    assert all(0 < low < high for low, high in zip(little, much, strict=True))
