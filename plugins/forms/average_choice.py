"""The step `average_choice`: a run's student is averaged with its start by the share of the training that does best on validation
requests and on the general panel (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
"""

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from core.config.recipe import MAX_GENERAL_LOSS
from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.hooks import RunHooks
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.runs.student_records import StepRecord, StudentRecord
from core.sample import Message, Seed
from core.shared_options import DEFAULT_GGUF_TYPE
from core.storage.atomic_files import read_json, write_json
from flows.data.student_files import configure_student_as_teacher
from flows.evaluate.student_evaluation import collect_used_requests
from flows.terminal.console import SESSION

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from agents.studies.general_panel import GeneralPanel

AVERAGE_SHARES = (0.25, 0.5, 0.75, 1.0)


class ShareScore(NamedTuple):
    """A student of averaged weights on validation requests of its recipe, and on the validation part of the general panel."""

    share: float
    pass_rate: float
    panel_rate: float
    """Share of the panel's judged tasks that it passed."""


class FormHooks(RunHooks):
    async def finish_student(
        self,
        run: RunDir,
        plan: "RunPlan",
        manifest: RunManifest,
        trained: StudentRecord,
        held_out: Sequence[Sequence[Message]],
    ) -> StudentRecord | None:
        if plan.recipe.student is None or all(step.type != "average_choice" for step in plan.recipe.student.steps):
            return None
        try:
            return await _average_run_student(run, plan, manifest, held_out)
        except UsageError as error:
            manifest.shortfalls.append(f"the student has its trained weights, since no share can be chosen: {error}")
            (run.path / "wip" / "student").rename(run.student)
            return trained


HOOKS = FormHooks()


def choose_average_share(scores: Sequence[ShareScore], start_panel_rate: float, max_loss: float) -> float:
    """Among the shares whose loss on the panel, compared with the start, is at most `max_loss`, the one with the highest pass
    rate on the recipe; without any, the one with the highest sum of both rates. The smaller share in a tie.
    """
    # Rounded, since 0.6 - 0.55 is a little more than 0.05.
    safe = [score for score in scores if round(start_panel_rate - score.panel_rate, 9) <= max_loss]
    if safe:
        return min(safe, key=lambda score: (-score.pass_rate, score.share)).share
    return min(scores, key=lambda score: (-round(score.pass_rate + score.panel_rate, 9), score.share)).share


def describe_choice(scores: Sequence[ShareScore], start_panel_rate: float, requests: int, tasks: int) -> StepRecord:
    """The chosen share, and why. `tasks` are the judged ones of the panel."""
    share = choose_average_share(scores, start_panel_rate, MAX_GENERAL_LOSS)
    rates = ", ".join(f"{score.share:g}: {score.pass_rate:.0%} and {score.panel_rate:.0%}" for score in scores)
    sentence = (
        f"share {share:g} of the training, chosen by {requests} requests of the recipe and {tasks} tasks of the general panel "
        f"({rates}; the start's panel rate {start_panel_rate:.0%})"
    )
    rows = {"weights": f"start + {share:g} * (trained - start)", "choice of the share": sentence}
    values = {
        "share": share,
        **{f"{score.share:g}: {name}": rate for score in scores for name, rate in score._asdict().items()},
    }
    note = f"{share:g} of the way from the start to the trained weights"
    return StepRecord(type="average_choice", rows=rows, note=note, values=values)


async def _average_run_student(
    run: RunDir, plan: "RunPlan", manifest: RunManifest, held_out: Sequence[Sequence[Message]]
) -> StudentRecord:
    """Choose the share and write the averaged student. Finished scores are kept for a resumed run.

    Raises:
        BudgetExhausted, RunStopped, StillhouseError: as `evaluate_held_out`; UsageError if the student cannot be exported.
    """
    from agents.studies.general_panel import build_general_panel
    from agents.studies.held_out_evaluation import join_requests, require_held_out_seeds
    from plugins.forms.averaged_students import write_averaged_student, write_averaged_weights
    from students.comparison import write_untrained_student
    from students.gguf_export import export_gguf

    config = plan.recipe.student
    assert config
    assert config.evaluation
    trained, folder = run.path / "wip" / "student", run.path / "wip" / "average"
    number, start = config.evaluation.requests, run.path / "wip" / "average-start"
    used = collect_used_requests(run, plan, SESSION.print_unless_stopped)
    seeds = require_held_out_seeds(plan, 2 * number, used)[number:]  # after those of the final evaluation
    panel = build_general_panel(plan, config.evaluation.panel, part="validation")
    shutil.rmtree(start, ignore_errors=True)
    write_untrained_student(trained, start)

    scores_file = run.path / "wip" / "average.json"
    scores: dict[str, dict[str, float]] = read_json(scores_file) if scores_file.is_file() else {}
    for share in (0.0, *AVERAGE_SHARES):
        if str(share) in scores:
            continue
        SESSION.print_unless_stopped(f"average: {share:g} of the training, on {number} requests and the general panel")
        write_averaged_weights(trained, start, share, folder)
        weights = export_gguf(folder, DEFAULT_GGUF_TYPE).path
        model = configure_student_as_teacher(weights, plan.recipe.generator_teacher)
        # The start is asked the panel only: its loss there is what counts.
        scores[str(share)] = await _score_share(run, plan, manifest, model, seeds if share else [], panel)
        write_json(scores_file, scores)
        shutil.rmtree(folder)
    found = [ShareScore(share=share, **scores[str(share)]) for share in AVERAGE_SHARES]
    choice = describe_choice(found, scores["0.0"]["panel_rate"], number, len(panel.judged))
    SESSION.print_unless_stopped(f"average: {choice.rows['choice of the share']}")
    asked = [join_requests(questions) for seed in seeds if (questions := plan.family.questions(seed)) is not None]
    record = write_averaged_student(trained, start, choice, run.student, held_out, asked)
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
