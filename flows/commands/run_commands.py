"""Commands that execute a recipe: `run`, and `generate` without a student."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import INTERRUPTED_EXIT_CODE, RunFailed, StillhouseError
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    MAKE_PANEL,
    JsonOption,
    QuietOption,
    RecipeArgument,
    ResumeOption,
    RunsOption,
    SetOption,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION, UserInterrupt

if TYPE_CHECKING:
    from core.runs.releases import Release
    from core.runs.run_dir import RunDir
    from flows.run.run_preparation import PreparedRun

app = typer.Typer()
RecordOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the samples' seeds, requests and replies to FILE when the run ends, for fake/replay:FILE.",
    ),
]


@app.command("run", rich_help_panel=MAKE_PANEL)
def run_command(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    runs_dir: RunsOption = RUNS_FOLDER,
    resume: ResumeOption = False,
    release: Annotated[
        bool, typer.Option("--release", help="Release the run when it is done; exit 3 if the release gate is not met.")
    ] = False,
    record: RecordOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run all stages: produce, curate, assess, package, and distill if the recipe has a student."""
    prepared, summary = _run_through_command(
        recipe, overrides, runs_dir, resume=resume, quiet=quiet, distill=True, release=release, record=record
    )
    run, released = prepared.run, None
    if release:
        summary = {**summary, "release": None}
    if release and summary["shortfalls"]:
        from flows.terminal.suggested_commands import build_runs_dir_arguments, format_command

        command = format_command("release", run.name, *build_runs_dir_arguments(runs_dir))
        SESSION.print_message(f"not released, since it is partial; `{command}` releases what it has")
    elif release:
        from flows.release.release_creation import release_run

        try:
            released = release_run(run, prepared.storage).release
        except StillhouseError:  # the run is whole
            _print_result(run, summary, runs_dir, as_json=as_json)
            raise
        summary["release"] = released.name
    _print_result(run, summary, runs_dir, as_json=as_json, released=released)


@app.command("generate", rich_help_panel=MAKE_PANEL)
def generate_command(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    runs_dir: RunsOption = RUNS_FOLDER,
    resume: ResumeOption = False,
    record: RecordOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run all stages except distill: from seeds to a dataset and its report."""
    prepared, summary = _run_through_command(
        recipe, overrides, runs_dir, resume=resume, quiet=quiet, distill=False, record=record
    )
    _print_result(prepared.run, summary, runs_dir, as_json=as_json)


def _run_through_command(
    recipe: str,
    overrides: list[str] | None,
    runs_dir: str,
    *,
    resume: bool,
    quiet: bool,
    distill: bool,
    release: bool = False,
    record: Path | None,
) -> "tuple[PreparedRun, dict[str, Any]]":
    """Open the run and run it through Prefect; if it stops early, print the command that resumes it. Returns its summary."""
    from flows.run.run_preparation import prepare_run, run_locally
    from flows.terminal.suggested_commands import suggest_next_command

    SESSION.quiet = quiet
    prepared = prepare_run(
        recipe, overrides or [], runs_dir, resume=resume, distill=distill, release=release, record=record
    )
    run = prepared.run
    with SESSION.handle_interrupts():
        try:
            summary = run_locally(prepared)
        except (UserInterrupt, KeyboardInterrupt):
            print(f"interrupted; finished samples are stored\nnext: {prepared.resume_command}", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
        except RunFailed as error:
            error.hint = suggest_next_command(run.read_manifest(), run, run.name, runs_dir)
            raise
        finally:
            if record:
                _record_samples(run, record)
    return prepared, summary


def _record_samples(run: "RunDir", path: Path) -> None:
    """Record what a run has finished, also if it ended early. A failure here must not hide how the run ended."""
    from core.storage.recording import write_recording
    from flows.data.curated_run import read_finished_samples

    try:
        family = run.read_recipe().family
        count = write_recording(path, family, read_finished_samples(run))
    except StillhouseError as error:
        SESSION.print_message(f"warning: nothing was recorded: {error}")
        return
    SESSION.print_message(
        f"{path}: {count:,} samples recorded" if count else f"{path}: not written, no sample is finished"
    )


def _print_result(
    run: "RunDir", summary: dict[str, Any], runs_dir: str, *, as_json: bool, released: "Release | None" = None
) -> None:
    """Print the card of a run that ended, or its summary. Exits with 1 if it made less than the recipe asks for."""
    from itertools import islice

    from flows.data.curated_run import read_kept_samples
    from flows.terminal.run_summary import CARD_CHOICE, format_closing_card

    if as_json:
        print_json(summary)
    else:
        rows = list(islice(read_kept_samples(run), CARD_CHOICE))
        print_text(format_closing_card(run.read_manifest(), run, rows, run.name, runs_dir, released))
    if summary["shortfalls"]:
        raise SystemExit(RunFailed.exit_code)
