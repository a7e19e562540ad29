"""Commands that execute a recipe: `run`, and `generate` without a student."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import INTERRUPTED_EXIT_CODE, RunExists, RunFailed, RunInUse, StillhouseError, UsageError
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    MAKE_PANEL,
    JsonOption,
    QuietOption,
    RecipeArgument,
    ResumeOption,
    RunsOption,
    SetOption,
    load_command_plan,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION, UserInterrupt

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from core.runs.releases import Release
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
    if not release:
        _print_result(prepared, summary, runs_dir, as_json=as_json)
        return
    if summary["shortfalls"]:
        from flows.terminal.suggested_commands import build_runs_dir_arguments, format_command

        command = format_command("release", prepared.run.name, *build_runs_dir_arguments(runs_dir))
        SESSION.print_message(f"not released, since it is partial; `{command}` releases what it has")
        _print_result(prepared, {**summary, "release": None}, runs_dir, as_json=as_json)
        return
    from flows.release.release_creation import release_run

    try:
        released = release_run(prepared.run, prepared.storage).release
    except StillhouseError:  # the run is whole
        _print_result(prepared, {**summary, "release": None}, runs_dir, as_json=as_json)
        raise
    _print_result(prepared, {**summary, "release": released.name}, runs_dir, as_json=as_json, released=released)


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
    _print_result(prepared, summary, runs_dir, as_json=as_json)


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
    from flows.run.local_run import run_locally
    from flows.run.run_preparation import prepare_run
    from flows.terminal.suggested_commands import build_invocation, build_resume_command, suggest_next_command

    SESSION.quiet = quiet
    if record:
        _check_recording_target(record, load_command_plan(recipe, overrides), resume=resume)
    invocation = build_invocation(recipe, overrides or [], distill=distill, release=release)
    resumption = build_resume_command(invocation, runs_dir)
    resumption += f" --record {shlex.quote(str(record))}" if record else ""
    try:  # before anything slow starts, so that a mistake is printed at once
        prepared = prepare_run(recipe, overrides or [], runs_dir, resume=resume, distill=distill, release=release)
    except RunExists as error:
        if not isinstance(error, RunInUse):
            error.hint = f"next: {resumption}"
        raise
    run = prepared.run
    with SESSION.handle_interrupts():
        try:
            summary = run_locally(prepared)
        except (UserInterrupt, KeyboardInterrupt):
            print(f"interrupted; finished samples are stored\nnext: {resumption}", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
        except RunFailed as error:
            error.hint = suggest_next_command(run.read_manifest(), run, run.name, runs_dir)
            raise
        finally:
            if record:
                _record_samples(prepared, record)
    return prepared, summary


def _check_recording_target(path: Path, plan: "RunPlan", *, resume: bool) -> None:
    """Refuse a recording that could not be written, or would replace another, before the run costs anything."""
    from core.project_files import find_referenced_file
    from core.storage.atomic_files import check_writable

    if "://" in str(path) or str(path).startswith("s3:"):
        raise UsageError(f"--record {path}: must be a file of this machine, not an address")
    if not path.name or path.is_dir():
        raise UsageError(f"--record {path}: is a folder; name a file in it")
    read = [teacher.recording_file for teacher in plan.recipe.teachers.values() if teacher.replays]
    read += [find_referenced_file(name, plan.folder) for name in [plan.recipe.seeds.recording] if name]
    if path.exists() and any(path.samefile(file) for file in read if file.exists()):
        raise UsageError(f"--record {path}: the run reads this recording; name another file")
    if path.exists() and not resume:
        raise UsageError(f"--record {path}: exists; remove it, or name another file (only --resume replaces it)")
    check_writable(path)


def _record_samples(prepared: "PreparedRun", path: Path) -> None:
    """Record what a run has finished, also if it ended early. A failure here must not hide how the run ended."""
    from core.storage.recording import write_recording
    from flows.data.curated_run import read_finished_samples

    try:
        family = prepared.run.read_recipe().family
        count = write_recording(path, family, read_finished_samples(prepared.run))
    except StillhouseError as error:
        SESSION.print_message(f"warning: nothing was recorded: {error}")
        return
    SESSION.print_message(
        f"{path}: {count:,} samples recorded" if count else f"{path}: not written, no sample is finished"
    )


def _print_result(
    prepared: "PreparedRun", summary: dict[str, Any], runs_dir: str, *, as_json: bool, released: "Release | None" = None
) -> None:
    """Print the card of a run that ended, or its summary. Exits with 1 if it made less than the recipe asks for."""
    from itertools import islice

    from flows.data.curated_run import read_kept_samples
    from flows.terminal.run_summary import CARD_CHOICE, format_closing_card

    run = prepared.run
    if as_json:
        print_json(summary)
    else:
        rows = list(islice(read_kept_samples(run), CARD_CHOICE))
        print_text(format_closing_card(run.read_manifest(), run, rows, run.name, runs_dir, released))
    if summary["shortfalls"]:
        raise SystemExit(RunFailed.exit_code)
