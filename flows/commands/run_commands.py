"""Commands that execute a recipe, `run` and `generate`, and those that show a run, `report` and `show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import RunFailed, StillhouseError
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    MAKE_PANEL,
    JsonOption,
    QuietOption,
    RecipeArgument,
    ResumeOption,
    RunArgument,
    RunsOption,
    SetOption,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION

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
    from flows.prefect_server.local_server import run_locally
    from flows.run.run_preparation import prepare_run
    from flows.terminal.suggested_commands import suggest_next_command

    SESSION.quiet = quiet
    prepared = prepare_run(
        recipe, overrides or [], runs_dir, resume=resume, distill=distill, release=release, record=record
    )
    run = prepared.run
    with SESSION.exit_if_interrupted(f"finished samples are stored\nnext: {prepared.resume_command}"):
        try:
            summary = run_locally(prepared)
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


@app.command("report", rich_help_panel=MAKE_PANEL)
def report_command(run_name: RunArgument, *, runs_dir: RunsOption = RUNS_FOLDER, as_json: JsonOption = False) -> None:
    """Print the run card and the path of the report page; writes the page again from the files of the run."""
    from core.runs.batch_records import read_open_batches
    from core.runs.records import summarize_manifest
    from flows.data.curated_run import read_dropped_samples, read_kept_samples
    from flows.data.run_storage import open_run_storage
    from flows.report.run_report import write_run_report
    from flows.terminal.run_summary import format_run_card

    storage = open_run_storage(runs_dir)
    run = storage.find_run(run_name)
    manifest = storage.read_manifest(run)
    if manifest.counts.candidates:
        write_run_report(run, manifest, run.read_recipe(), read_kept_samples(run), read_dropped_samples(run))
    batches = [
        {
            "id": batch.id,
            "model": batch.model,
            "state": batch.state,
            "requests": len(batch.custom_ids),
            "ended": batch.done,
            "expires": batch.expires,
        }
        for batch in read_open_batches(run.batches)
    ]
    print_json(summarize_manifest(manifest) | ({"batches": batches} if batches else {})) if as_json else print_text(
        format_run_card(manifest, run, run_name, runs_dir)
    )


@app.command("show", rich_help_panel=MAKE_PANEL)
def show_command(
    run_name: RunArgument,
    sample: Annotated[str | None, typer.Argument(help="A sample's id, or the number at the end of the id.")] = None,
    *,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Print a sample with every turn, critique and verdict. Without SAMPLE, print the run's whole card and list its samples."""
    from core.sample import parse_sample_index
    from flows.data.curated_run import find_sample, read_finished_lines, read_finished_samples
    from flows.data.run_storage import open_run_storage
    from flows.terminal.run_summary import format_run_card
    from flows.terminal.sample_history import format_sample_history, format_sample_line
    from flows.terminal.suggested_commands import build_runs_dir_arguments, format_next_line

    storage = open_run_storage(runs_dir)
    run = storage.find_run(run_name)
    if sample is None:
        if as_json:
            print_json([line._asdict() for line in read_finished_lines(run)])
            return
        print_text(format_run_card(storage.read_manifest(run), run, suggests=False))
        first = None
        for finished in read_finished_samples(run):
            first = first or finished
            print_text(format_sample_line(finished))
        words = ["report", run_name] if first is None else ["show", run_name, str(parse_sample_index(first.id))]
        print_text(format_next_line(*words, *build_runs_dir_arguments(runs_dir)))
        return
    named = find_sample(run, sample)
    print_text(named.model_dump_json() if as_json else format_sample_history(named))
