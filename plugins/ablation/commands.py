"""`stillhouse ablate`, `stillhouse forecast` and `stillhouse selection`."""

from typing import Annotated

import typer

from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    CLEAN_PANEL,
    STUDENT_PANEL,
    JsonOption,
    QuietOption,
    RecipeOption,
    RunArgument,
    RunsOption,
    print_text,
)
from flows.terminal.console import SESSION, UserInterrupt

app = typer.Typer()


@app.command("ablate", rich_help_panel=STUDENT_PANEL)
def ablate_command(
    run: RunArgument,
    *,
    arms: Annotated[str, typer.Option(help="Arms by letter, separated by commas; `--dry-run` explains each.")] = (
        "a,b,c,d,e,f,g,h,i"
    ),
    rows: Annotated[
        str,
        typer.Option(help="Rows of an arm: `equal` (as many as the smallest arm has), `all`, or numbers, by commas."),
    ] = "equal,all",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each arm, each with rows drawn anew.")] = 3,
    requests: Annotated[
        int, typer.Option("-n", "--requests", min=1, max=100_000, help="Held-out requests, the same for every arm.")
    ] = 100,
    panel: Annotated[int, typer.Option(min=0, max=10_000, help="Tasks of the general panel; 0: none.")] = 64,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            "--held-out",
            metavar="CHECK",
            help="A check, or FILE.py:CHECK, that selected no row and judges every arm; repeatable.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key of the student table, as in epochs=1; repeatable."
        ),
    ] = None,
    recipe: RecipeOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be compared, and stop.")] = False,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure what each step of a run bought: a student of the rows with it and one without it, on the same requests.

    The same command resumes after an interruption and adds arms, seeds or rows to what is measured.
    """
    from agents.calls.budget import BudgetExhausted
    from core.errors import LimitReached
    from core.stop_signal import RunStopped
    from flows.data.curated_run import read_dropped_samples, read_kept_samples
    from flows.data.run_storage import open_run_storage
    from flows.recipes.recipe_catalog import load_recipe_plan
    from flows.report.run_report import write_run_report
    from plugins.ablation.ablation import run_ablation
    from plugins.ablation.results import format_ablation
    from plugins.ablation.task import AblationOptions, prepare_ablation

    SESSION.quiet = quiet
    options = AblationOptions(arms, rows, seeds, requests, panel, held_out or [], overrides or [])
    plan = load_recipe_plan(recipe, []) if recipe else None
    storage = open_run_storage(runs_dir)
    task = prepare_ablation(storage.find_run(run), options, plan, storage.runs, SESSION)
    if dry_run:
        print_text(task.declared.model_dump_json() if as_json else task.describe())
        return
    with SESSION.exit_if_interrupted("answers are stored; the same command resumes"), storage.lock_run(task.run):
        try:
            found = run_ablation(task, SESSION)
        except BudgetExhausted as error:
            raise LimitReached(
                f"the rest of the run's budget does not pay for the teacher's answers: {error}; leave h out with --arms, or name "
                "the recipe with a larger budget: --recipe RECIPE"
            ) from None
        except RunStopped:
            raise UserInterrupt from None
        kept, dropped = read_kept_samples(task.run), read_dropped_samples(task.run)
        write_run_report(task.run, task.manifest, task.run.read_recipe(), kept, dropped)
    print_text(found.model_dump_json() if as_json else f"{format_ablation(found)}\n  page  {task.run.report_file}")


@app.command("forecast", rich_help_panel=STUDENT_PANEL)
def forecast_command(
    run: RunArgument,
    *,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each number of rows.")] = 2,
    requests: Annotated[
        int, typer.Option("-n", "--requests", min=1, max=100_000, help="Held-out requests, the same for every student.")
    ] = 200,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key of the student table, as in epochs=1; repeatable."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be trained, and stop.")] = False,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict what the next rows of a run will bring, from students of an eighth, a quarter, a half and all of its rows.

    The same command resumes after an interruption.
    """
    from core.stop_signal import RunStopped
    from flows.data.curated_run import read_dropped_samples, read_kept_samples
    from flows.data.run_storage import open_run_storage
    from flows.report.run_report import write_run_report
    from plugins.ablation.forecast import describe_forecast, format_forecast, prepare_forecast, run_forecast

    SESSION.quiet = quiet
    storage = open_run_storage(runs_dir)
    task = prepare_forecast(storage.find_run(run), seeds, requests, overrides or [], storage.runs, SESSION)
    if dry_run:
        print_text(task.declared.model_dump_json() if as_json else describe_forecast(task, SESSION))
        return
    with SESSION.exit_if_interrupted("answers are stored; the same command resumes"), storage.lock_run(task.run):
        try:
            forecast = run_forecast(task, SESSION)
        except RunStopped:
            raise UserInterrupt from None
        kept, dropped = read_kept_samples(task.run), read_dropped_samples(task.run)
        write_run_report(task.run, task.manifest, task.run.read_recipe(), kept, dropped)
    print_text(
        forecast.model_dump_json() if as_json else f"{format_forecast(forecast)}\n  page  {task.run.report_file}"
    )


@app.command("selection", rich_help_panel=CLEAN_PANEL)
def selection_command(run: RunArgument, *, runs_dir: RunsOption = RUNS_FOLDER, as_json: JsonOption = False) -> None:
    """Compare what each check, the critic and each filter of a run keep with random drops of as many rows: words, topics and
    lengths.
    """
    from flows.data.run_storage import open_run_storage
    from plugins.ablation.run_selection import format_run_selection, measure_run_selection

    found = open_run_storage(runs_dir).find_run(run)
    record = measure_run_selection(found, found.read_recipe())
    print_text(record.model_dump_json() if as_json else format_run_selection(found.name, record))
