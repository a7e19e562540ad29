"""Teacher, start and student on the general panel: pass rates, the length of open answers, and the divergence from the start.

Knows neither how tasks are chosen nor how they are judged. What the embedded teacher and its weights before training answer to
the panel of `constrained-instructions` never changes, so it is shipped. It counts only for the same weights, build of llama.cpp,
processor features and questions; otherwise these models are asked.
"""

import platform
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING

from core.config.recipe import BudgetConfig
from core.config.teachers import TeacherConfig
from core.intervals import IntervalEstimate, estimate_share, estimate_small_mean
from core.runs.student_records import GeneralPanelRecord, PanelModelRecord
from core.sample import Message, Spending, json_digest, text_digest
from core.storage.atomic_files import read_json
from flows.evaluate.student_results import compare_paired_results
from flows.terminal.console import CommandSession

if TYPE_CHECKING:
    from agents.studies.general_panel import GeneralPanel, PanelResults

ENGINE = "xllamacpp"
PROCESSOR = Path("/proc/cpuinfo")
CPU_FEATURES = ("avx2", "bmi2", "f16c", "fma")
"""Instructions that this build of llama.cpp and the C library's functions of floating point choose by."""
PLAIN_SETTINGS = {"model", "max_concurrent", "slot_tokens", "threads"}
"""Settings of a teacher that change no answer at temperature 0, or whose effect is in the hash of the weights."""


@dataclass(frozen=True)
class PanelModels:
    """The models that a panel asks, by role, and how their replies are paid and stored."""

    asked: Mapping[str, TeacherConfig]
    folders: Mapping[str, Path]
    """Of the student and, if it is known, of its start, whose predictions are compared."""
    files: Mapping[str, Path]
    """The GGUF files of local models."""
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
    from agents.studies.general_panel import ask_general_panel, judge_panel_answers

    answers, shipped, spent = {}, list[str](), Spending()
    for role, model in models.asked.items():
        if (found := find_shipped_answers(panel, model, models.files.get(role))) is not None:
            answers[role] = await judge_panel_answers(panel, found)
            shipped.append(role)
            session.print_unless_stopped(f"evaluate: {role}: {_format_passed(answers[role])} (shipped answers)")
            continue
        costs: list[Spending] = []

        def show_progress(done: int, role: str = role) -> None:
            session.show_progress(lambda: f"{role}: {done:,} of {len(panel.seeds):,} tasks of the general panel")

        paid = role == "teacher"
        answers[role] = await ask_general_panel(
            panel, model, session.stop, show_progress, cache=models.cache, budget=models.budget if paid else None,
            journal=models.journal if paid else None, elsewhere=models.elsewhere, on_spent=costs.append,
        )  # fmt: skip
        spent += sum(costs, Spending()) if paid else Spending()
        session.print_unless_stopped(f"evaluate: {role}: {_format_passed(answers[role])}")
    divergence = None
    if {"student", "start"} <= models.folders.keys() and "start" in answers:
        session.print_unless_stopped("evaluate: divergence of the student from its start")
        divergence = _measure_divergence(models.folders, answers["start"])
    return _build_panel_record(panel, answers, divergence, shipped), answers, spent


def _format_passed(results: "PanelResults") -> str:
    return f"{results.passed} of {len(results.judged)} tasks of the general panel pass"


def find_shipped_answers(panel: "GeneralPanel", model: TeacherConfig, weights: Path | None) -> list[str] | None:
    """The shipped answers of `model`, whose file is `weights`, to all questions of the panel; None if there are none."""
    from agents.studies.general_panel import PANEL_ANSWERS, list_panel_questions

    if weights is None or model.model_dump(exclude=PLAIN_SETTINGS, exclude_defaults=True):
        return None
    table: dict[str, str] = read_json(PANEL_ANSWERS).get(identify_answering(weights), {})
    answers = [table.get(text_digest(question.canonical)) for question in list_panel_questions(panel, model)]
    return None if None in answers else [answer for answer in answers if answer is not None]


def identify_answering(weights: Path, engine: str = ENGINE, processor: Path = PROCESSOR) -> str:
    """A digest of what an answer at temperature 0 depends on, besides its question: the hashes of the weights and of llama.cpp's
    build, as its package records it, and the processor.
    """
    from core.weights.gguf_files import hash_gguf

    try:
        built = [f"{file.name} {file.hash.value}" for file in files(engine) or () if file.suffix == ".so" and file.hash]
    except PackageNotFoundError:
        built = []
    known = processor.read_text(encoding="utf-8").split() if processor.exists() else []
    features = [feature for feature in CPU_FEATURES if feature in known]
    return json_digest([hash_gguf(weights), built, platform.machine(), features])


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
    panel: "GeneralPanel",
    answers: "Mapping[str, PanelResults]",
    divergence: IntervalEstimate | None,
    shipped: Collection[str],
) -> GeneralPanelRecord:
    models = []
    for role, found in answers.items():
        rate = estimate_share(found.passed, len(panel.judged))
        assert rate, "the panel has a task"
        models.append(PanelModelRecord(
            role=role, passed=found.passed, pass_rate=rate, passed_by_group=found.passed_by_group, words=found.words,
            shipped=role in shipped,
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
