"""Commands to inspect results: reports and samples."""

from typing import Annotated

import typer

from core.project_files import RUNS_FOLDER
from flows.commands.command_options import MAKE_PANEL, JsonOption, RunArgument, RunsOption, print_json, print_text

app = typer.Typer()


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
