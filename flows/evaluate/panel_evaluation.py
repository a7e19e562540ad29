"""Teacher, start and student on the general panel: pass rates, the length of open answers, and the divergence from the start.

Knows neither how tasks are chosen nor how they are judged.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.config.recipe import BudgetConfig
from core.config.teachers import TeacherConfig
from core.intervals import IntervalEstimate, estimate_share, estimate_small_mean
from core.runs.student_records import GeneralPanelRecord, PanelModelRecord
from core.sample import Message, Spending
from flows.evaluate.student_results import compare_paired_results
from flows.terminal.console import CommandSession

if TYPE_CHECKING:
    from agents.studies.general_panel import GeneralPanel, PanelResults


@dataclass(frozen=True)
class PanelModels:
    """The models that a panel asks, by role, and how their replies are paid and stored."""

    asked: Mapping[str, TeacherConfig]
    folders: Mapping[str, Path]
    """Of the student and, if it is known, of its start, whose predictions are compared."""
    cache: Path | None
    budget: BudgetConfig
    """Limits on what the teacher may cost."""
    journal: Path | None
    elsewhere: Spending


async def evaluate_general_panel(
    panel: "GeneralPanel", models: PanelModels, session: CommandSession
) -> "tuple[GeneralPanelRecord, dict[str, PanelResults], Spending]":
    """Ask every model. Returns the record, each model's answers by role, and what the teacher's replies cost.

    Raises:
        BudgetExhausted, RunStopped, StillhouseError: as `ask_general_panel`.
    """
    from agents.studies.general_panel import ask_general_panel

    answers, spent = {}, Spending()
    for role, model in models.asked.items():
        costs: list[Spending] = []

        def show_progress(done: int, role: str = role) -> None:
            session.show_progress(lambda: f"{role}: {done:,} of {len(panel.seeds):,} tasks of the general panel")

        paid = role == "teacher"
        answers[role] = await ask_general_panel(
            panel, model, session.stop, show_progress, cache=models.cache, budget=models.budget if paid else None,
            journal=models.journal if paid else None, elsewhere=models.elsewhere, on_spent=costs.append,
        )  # fmt: skip
        spent += sum(costs, Spending()) if paid else Spending()
        session.print_unless_stopped(
            f"evaluate: {role}: {answers[role].passed} of {len(panel.judged)} tasks of the general panel pass"
        )
    divergence = None
    if {"student", "start"} <= models.folders.keys() and "start" in answers:
        session.print_unless_stopped("evaluate: divergence of the student from its start")
        divergence = _measure_divergence(models.folders, answers["start"])
    return _build_panel_record(panel, answers, divergence), answers, spent


def _measure_divergence(folders: Mapping[str, Path], start: "PanelResults") -> IntervalEstimate | None:
    from students.comparison import measure_answer_divergence

    conversations: list[Sequence[Message]] = [
        [Message(role="user", content=result.question), Message(role="assistant", content=result.answer)]
        for result in start.open
        if result.answer
    ]
    found = estimate_small_mean(measure_answer_divergence(folders["start"], folders["student"], conversations))
    return found and found.model_copy(update={"low": max(0.0, found.low)})


def _build_panel_record(
    panel: "GeneralPanel", answers: "Mapping[str, PanelResults]", divergence: IntervalEstimate | None
) -> GeneralPanelRecord:
    models = []
    for role, found in answers.items():
        rate = estimate_share(found.passed, len(panel.judged))
        assert rate, "the panel has a task"
        models.append(PanelModelRecord(
            role=role, passed=found.passed, pass_rate=rate, passed_by_group=found.passed_by_group, words=found.words,
        ))  # fmt: skip
    comparison = None
    if "start" in answers:
        comparison = compare_paired_results("start", answers["student"].judged, answers["start"].judged)
    return GeneralPanelRecord(
        tasks=len(panel.judged),
        groups=dict(Counter(seed.data["group"] for seed in panel.judged)),
        questions=len(panel.seeds) - len(panel.judged),
        models=models,
        comparison=comparison,
        divergence=divergence,
    )
