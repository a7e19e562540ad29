"""`stillhouse focus`."""

from pathlib import Path
from typing import Annotated

import typer

from core.project_files import RUNS_FOLDER
from flows.commands.command_options import STUDENT_PANEL, JsonOption, QuietOption, RunArgument, RunsOption, print_text
from flows.terminal.console import SESSION
from plugins.focus.measures import FocusMeasure

app = typer.Typer()


@app.command("focus", rich_help_panel=STUDENT_PANEL)
def focus_command(
    run: RunArgument,
    *,
    by: Annotated[
        FocusMeasure,
        typer.Option(
            help="What the student fails at: failures on validation requests, its loss, or, as a control, the inverse."
        ),
    ] = "failures",
    requests: Annotated[
        int, typer.Option("-n", "--requests", min=1, max=100_000, help="Validation requests, which no evaluation asks.")
    ] = 200,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")] = Path("weights.json"),
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find what a run's student fails at, and write weights by which the next generation's seeds are drawn."""
    from core.storage.atomic_files import write_text
    from flows.data.run_storage import open_run_storage
    from plugins.focus.config import NAME
    from plugins.focus.hooks import FocusRecord
    from plugins.focus.measurement import run_measurement
    from plugins.focus.summary import format_focus

    SESSION.quiet = quiet
    storage = open_run_storage(runs_dir)
    found = storage.find_run(run)
    with SESSION.exit_if_interrupted("answers are stored; the same command resumes"):
        weights = run_measurement(found, storage.runs, by, requests, SESSION)
    write_text(out, weights.model_dump_json(indent=2) + "\n")
    drawn_by = found.read_manifest().get(NAME, FocusRecord)
    text = format_focus(weights, drawn_by.weights if drawn_by else None, out, found.read_recipe().name)
    print_text(weights.model_dump_json() if as_json else text)
