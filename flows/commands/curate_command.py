"""The command `curate`: a run's dataset once more, from its samples, its filters and people's decisions."""

import sys

import typer

from core.errors import INTERRUPTED_EXIT_CODE
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    CLEAN_PANEL,
    JsonOption,
    QuietOption,
    RunArgument,
    RunsOption,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION, UserInterrupt

app = typer.Typer()


@app.command("curate", rich_help_panel=CLEAN_PANEL)
def curate_command(
    run_name: RunArgument,
    *,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a run's dataset again from its samples, its filters and its reviews. Asks no teacher and trains nothing."""
    from core.runs.records import summarize_manifest
    from flows.data.run_storage import open_run_storage
    from flows.run.repeated_curation import curate_again
    from flows.terminal.run_summary import format_run_card
    from flows.terminal.suggested_commands import build_resume_command, suggest_next_command

    SESSION.quiet = quiet
    storage = open_run_storage(runs_dir)
    run = storage.find_run(run_name)
    with SESSION.handle_interrupts():
        try:
            curated = curate_again(run, storage)
        except (UserInterrupt, KeyboardInterrupt):
            print("interrupted; the same command curates the run again", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    manifest = curated.manifest
    if as_json:
        print_json({**summarize_manifest(manifest), "stale_student": curated.stale_student})
        return
    print_text(format_run_card(manifest, run, suggests=False))
    if curated.stale_student and manifest.invocation:
        SESSION.print_message(
            "the student was trained before this curation and is no longer the run's; to train it again, resume the run"
        )
        print_text(f"next: {build_resume_command(manifest.invocation, runs_dir, release=False)}")
        return
    print_text(suggest_next_command(manifest, run, run_name, runs_dir))
