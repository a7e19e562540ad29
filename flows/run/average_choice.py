"""The share of the training in a student's weights, chosen on validation requests. Knows no Prefect.

Each share becomes a GGUF that answers requests of the recipe, after those of the final evaluation, and the validation part of the
general panel. The trained weights remain until the averaged student is written.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.config.recipe import MAX_GENERAL_LOSS
from core.config.teachers import TeacherConfig
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.runs.student_records import AverageRecord, ShareScore, StudentRecord
from core.sample import Message, Seed
from core.shared_options import DEFAULT_GGUF_TYPE
from core.storage.atomic_files import read_json, write_json
from flows.data.student_files import configure_student_as_teacher, import_student_module
from flows.evaluate.student_evaluation import collect_used_requests
from flows.terminal.console import SESSION

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from agents.studies.general_panel import GeneralPanel

AVERAGE_SHARES = (0.25, 0.5, 0.75, 1.0)


def choose_average_share(scores: Sequence[ShareScore], start_panel_rate: float, max_loss: float) -> float:
    """Among the shares whose loss on the panel, compared with the start, is at most `max_loss`, the one with the highest pass
    rate on the recipe; without any, the one with the highest sum of both rates. The smaller share in a tie.
    """
    # Rounded, since 0.6 - 0.55 is a little more than 0.05.
    safe = [score for score in scores if round(start_panel_rate - score.panel_rate, 9) <= max_loss]
    if safe:
        return min(safe, key=lambda score: (-score.pass_rate, score.share)).share
    return min(scores, key=lambda score: (-round(score.pass_rate + score.panel_rate, 9), score.share)).share


def locate_training(run: RunDir, average: float | str | None) -> Path:
    """Where the student is trained: apart, if its weights are averaged afterwards and are not yet."""
    apart = average == "validation" and not (run.student / "student.json").is_file()
    return run.path / "wip" / "student" if apart else run.student


async def average_run_student(
    run: RunDir, plan: "RunPlan", manifest: RunManifest, held_out: Sequence[Sequence[Message]]
) -> StudentRecord:
    """Choose the share and write the averaged student. Finished scores are kept for a resumed run.

    Raises:
        BudgetExhausted, RunStopped, StillhouseError: as `evaluate_held_out`; UsageError if the student cannot be exported.
    """
    from agents.studies.general_panel import build_general_panel
    from agents.studies.held_out_evaluation import join_requests, require_held_out_seeds

    config = plan.recipe.student
    assert config
    assert config.evaluation
    trained, folder = run.path / "wip" / "student", run.path / "wip" / "average"
    number, start = config.evaluation.requests, run.path / "wip" / "average-start"
    used = collect_used_requests(run, plan, SESSION.print_unless_stopped)
    seeds = require_held_out_seeds(plan, 2 * number, used)[number:]  # after those of the final evaluation
    panel = build_general_panel(plan, config.evaluation.panel, part="validation")
    shutil.rmtree(start, ignore_errors=True)
    import_student_module("comparison.text_losses").write_untrained_student(trained, start)
    averaging = import_student_module("training.weight_averaging")

    scores_file = run.path / "wip" / "average.json"
    scores: dict[str, dict[str, float]] = read_json(scores_file) if scores_file.is_file() else {}
    for share in (0.0, *AVERAGE_SHARES):
        if str(share) in scores:
            continue
        SESSION.print_unless_stopped(f"average: {share:g} of the training, on {number} requests and the general panel")
        averaging.write_averaged_weights(trained, start, share, folder)
        weights = import_student_module("output.gguf_export").export_gguf(folder, DEFAULT_GGUF_TYPE).path
        model = configure_student_as_teacher(weights, plan.recipe.generator_teacher)
        # The start is asked the panel only: its loss there is what counts.
        scores[str(share)] = await _score_share(run, plan, manifest, model, seeds if share else [], panel)
        write_json(scores_file, scores)
        shutil.rmtree(folder)
    found = [ShareScore(share=share, **scores[str(share)]) for share in AVERAGE_SHARES]
    start_rate, max_loss = scores["0.0"]["panel_rate"], MAX_GENERAL_LOSS
    choice = AverageRecord(
        requests=number,
        tasks=len(panel.judged),
        start_panel_rate=start_rate,
        max_loss=max_loss,
        scores=found,
        share=choose_average_share(found, start_rate, max_loss),
    )
    SESSION.print_unless_stopped(f"average: {choice.sentence}")
    asked = [join_requests(questions) for seed in seeds if (questions := plan.family.questions(seed)) is not None]
    record: StudentRecord = averaging.write_averaged_student(trained, start, choice, run.student, held_out, asked)
    for path in (start, trained):
        shutil.rmtree(path, ignore_errors=True)
    scores_file.unlink()
    return record


async def _score_share(
    run: RunDir,
    plan: "RunPlan",
    manifest: RunManifest,
    model: TeacherConfig,
    seeds: Sequence[Seed],
    panel: "GeneralPanel",
) -> dict[str, float]:
    from agents.studies.general_panel import ask_general_panel
    from agents.studies.held_out_evaluation import evaluate_held_out

    def show_progress(done: int) -> None:
        SESSION.show_progress(lambda: f"average: {done:,} answers")

    checks_ask = any(bound.check.calls(bound.options) for bound in plan.checks)
    limits = plan.recipe.budget.model_copy(update={"minutes": None})  # these are of production
    asked = await ask_general_panel(panel, model, SESSION.stop, show_progress, cache=None)
    results = []
    if seeds:
        results = await evaluate_held_out(
            plan, model, seeds, SESSION.stop, show_progress, cache=None, budget=limits if checks_ask else None,
            journal=run.evaluation_spend_file if checks_ask else None, elsewhere=manifest.costs.spent,
        )  # fmt: skip
    return {
        "pass_rate": sum(result.fault is None for result in results) / max(1, len(results)),
        "panel_rate": asked.passed / len(panel.judged),
    }


def keep_trained_student(run: RunDir) -> None:
    """Take the trained weights as they are, where no share can be chosen."""
    (run.path / "wip" / "student").rename(run.student)
