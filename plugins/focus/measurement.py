"""What a run's student fails at: its answers to validation requests, or its losses on the run's kept samples, by seed."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from agents.calls.budget import BudgetExhausted
from agents.planning.run_plan import RunPlan
from agents.studies.held_out_evaluation import (
    evaluate_held_out,
    has_fixed_questions,
    join_requests,
    require_held_out_seeds,
)
from core.errors import LimitReached, UsageError
from core.intervals import IntervalEstimate, estimate_share, estimate_small_mean
from core.plugins import locate_data
from core.runs.lineage import Lineage
from core.runs.releases import locate_releases
from core.runs.run_dir import RunDir
from core.shared_options import DEFAULT_GGUF_TYPE
from core.stop_signal import RunStopped
from core.storage.atomic_files import write_text
from flows.data.curated_run import read_kept_samples
from flows.data.student_files import configure_student_as_teacher, load_student_plan
from flows.evaluate.student_evaluation import collect_used_requests, student_max_tokens
from flows.terminal.console import SESSION, CommandSession, UserInterrupt
from plugins.focus.config import MIN_REQUESTS, NAME, FocusConfig
from plugins.focus.measures import FocusMeasure
from plugins.focus.weights import FocusWeights, read_focus_weights, weigh_values

RESERVED_REQUESTS = 500
"""The first held-out requests, which evaluations ask and no weight is measured on."""


class _Measured(NamedTuple):
    seeds: list[dict[str, Any]]
    numbers: list[float]
    requests: list[str]


def run_measurement(run: RunDir, runs: Path, by: FocusMeasure, number: int, session: CommandSession) -> FocusWeights:
    """`measure_focus`. Raises UserInterrupt on the stop signal, and LimitReached where the run's budget ends."""
    try:
        return asyncio.run(measure_focus(run, runs, by, number, session))
    except BudgetExhausted as error:
        raise LimitReached(f"the rest of the budget of {run.name} does not pay for its checks: {error}") from None
    except RunStopped:
        raise UserInterrupt from None


async def measure_focus(
    run: RunDir, runs: Path, by: FocusMeasure, number: int, session: CommandSession
) -> FocusWeights:
    """The weights of a run's seeds by what its student fails at; `runs` is the user's own folder of runs.

    Raises:
        UsageError: if the run has no student, its seeds ask no question, or there are too few requests.
        RunStopped: on the stop signal; the answers so far are in the run's cache. BudgetExhausted: by checks that ask teachers.
    """
    if not run.student.is_dir():
        raise UsageError(f"{run.name}: has no student; add [student] to its recipe and run it with --resume")
    plan = load_student_plan(run.student, run, runs)
    if by == "loss":
        measured = _measure_losses(run, session)
    else:
        _require(run, number, "requests")
        measured = await _ask_validation_requests(run, plan, number, session)
    _require(run, len(measured.numbers), "kept samples" if by == "loss" else "requests")
    estimate = estimate_small_mean if by == "loss" else estimate_failures
    values = weigh_values(measured.seeds, measured.numbers, estimate, inverse=by == "inverse")
    overall = sum(measured.numbers) / len(measured.numbers)
    return FocusWeights(run=run.name, by=by, overall=overall, values=tuple(values), requests=tuple(measured.requests))


def find_run_weights(run: RunDir, config: FocusConfig, *, in_work: bool) -> FocusWeights | None:
    """The weights of a run by `config.by`: measured once, of the run that its parent release is from; None without a parent.

    Only a run `in_work` is the user's own, and so are the runs next to it. Of another one, its file is read.

    Raises:
        UsageError: as `measure_focus`, if that run is no longer there, and if there is no file and the run is not in work.
        UserInterrupt: on the stop signal. LimitReached: as the budget of that run ends.
    """
    file, parent = locate_data(run.path, NAME) / "weights.json", run.read_parent()
    if file.is_file() or parent is None or config.by is None:
        return read_focus_weights(file) if file.is_file() else None
    if not in_work:
        raise UsageError(
            f"{run.name}: focus.by draws its seeds, and {file} is missing; resume the run, or name a recipe without focus"
        )
    recipe, runs = parent.release.rpartition("/")[0], run.path.parent
    release = Lineage(locate_releases(runs) / recipe).find_generation(parent.generation)
    source = RunDir(runs / Path(release.manifest.run.run).name)
    if not source.path.is_dir():
        raise UsageError(
            f"focus.by: the run {source.name} of {parent.release} is not in {runs}; leave focus out, or restore it"
        )
    with ThreadPoolExecutor(1) as thread:  # a run's stages are in an event loop, and the measurement needs its own
        weights = thread.submit(run_measurement, source, runs, config.by, config.requests, SESSION).result()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, weights.model_dump_json(indent=2) + "\n")
    return weights


def _require(run: RunDir, number: int, what: str) -> None:
    if number < MIN_REQUESTS:
        raise UsageError(f"{run.name}: {number} {what} tell nothing; {MIN_REQUESTS} are needed")


def estimate_failures(failures: Sequence[float]) -> IntervalEstimate | None:
    return estimate_share(round(sum(failures)), len(failures))


async def _ask_validation_requests(run: RunDir, plan: RunPlan, number: int, session: CommandSession) -> _Measured:
    """On requests that neither a sample nor an evaluation of up to `RESERVED_REQUESTS` uses."""
    from students.gguf_export import export_gguf

    if not has_fixed_questions(plan):
        raise UsageError(
            f"{plan.family.name}: the generator writes the questions, so seeds alone ask no question; use --by loss"
        )
    used = collect_used_requests(run, plan, session.print_unless_stopped)
    seeds = require_held_out_seeds(plan, RESERVED_REQUESTS + number, used)[RESERVED_REQUESTS:]
    model = configure_student_as_teacher(
        export_gguf(run.student, DEFAULT_GGUF_TYPE).path, plan.recipe.generator_teacher
    )
    # What checks ask of teachers counts against the rest of the run's budget, but for its minutes of production.
    budget = plan.recipe.budget.model_copy(update={"minutes": None}) if plan.asking_checks else None
    journal = locate_data(run.path, NAME) / "spend.jsonl" if budget else None
    if journal:
        journal.parent.mkdir(parents=True, exist_ok=True)
    results = await evaluate_held_out(
        plan, model, seeds, session.stop,
        lambda done: session.show_progress(lambda: f"focus: {done:,} of {number:,} requests"), cache=run.cache,
        budget=budget, journal=journal, elsewhere=run.read_manifest().costs.spent,
    )  # fmt: skip
    questions = [plan.family.questions(seed) or () for seed in seeds]
    failed = [float(result.fault is not None) for result in results]
    return _Measured([seed.data for seed in seeds], failed, list(map(join_requests, questions)))


def _measure_losses(run: RunDir, session: CommandSession) -> _Measured:
    from students.comparison import measure_text_loss
    from students.gguf_export import read_student

    model, tokenizer = read_student(run.student)
    longest = student_max_tokens(run.student)
    seeds: list[dict[str, Any]] = []
    losses: list[float] = []
    kept = list(read_kept_samples(run))
    for sample in kept:
        session.show_progress(lambda: f"focus: losses on {len(losses):,} of {len(kept):,} kept samples")
        found = measure_text_loss(model, tokenizer, [sample.candidate.messages], longest)
        if found.nats_per_token is not None:
            seeds.append(sample.seed.data)
            losses.append(found.nats_per_token)
    return _Measured(seeds, losses, [])
