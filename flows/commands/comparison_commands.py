"""The command that compares two datasets: diff."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.errors import INTERRUPTED_EXIT_CODE
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    CLEAN_PANEL,
    INPUT_HELP,
    ColumnsOption,
    JsonOption,
    QuietOption,
    RunsOption,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION, UserInterrupt

app = typer.Typer()


@app.command("diff", rich_help_panel=CLEAN_PANEL)
def diff_command(
    a: Annotated[str, typer.Argument(metavar="A", help=INPUT_HELP)],
    b: Annotated[str, typer.Argument(metavar="B", help="What A is compared with, as A.")],
    *,
    columns: ColumnsOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="PAGE", help="An HTML file to write.")] = None,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare two datasets: rows added, removed and changed, and what the records of both say. Exit 0 whatever differs."""
    from core.storage.atomic_files import check_writable
    from flows.compare.comparison_text import build_comparison_record, format_comparison, write_comparison_page
    from flows.compare.dataset_comparison import compare_datasets
    from flows.data.run_storage import open_run_storage

    SESSION.quiet = quiet
    if out:
        check_writable(out)
    with SESSION.handle_interrupts():
        try:
            comparison = compare_datasets(a, b, open_run_storage(runs_dir), SESSION.check_stopped, columns)
        except (UserInterrupt, KeyboardInterrupt):
            print("interrupted; nothing was written", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    if out:
        write_comparison_page(out, comparison)
    if as_json:
        print_json(build_comparison_record(comparison) | ({"page": str(out)} if out else {}))
        return
    print_text(format_comparison(comparison, out, runs_dir))
