"""Commands that make a reference for `assess` and test it: reference, self-test."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import GateNotMet
from core.project_files import RUNS_FOLDER
from core.shared_options import DEFAULT_ASSESS_SEED
from flows.commands.command_options import (
    CLEAN_PANEL,
    ColumnsOption,
    JsonOption,
    KindOption,
    QuietOption,
    RunsOption,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION

app = typer.Typer()


@app.command("reference", rich_help_panel=CLEAN_PANEL)
def reference_command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Real text: datasets as for assess, or documents and Python files, or folders of them.",
            show_default=False,
        ),
    ],
    *,
    columns: ColumnsOption = None,
    out: Annotated[Path, typer.Option("--out", metavar="REF", help="The Parquet file to write.")],
    source: Annotated[str, typer.Option("--source", metavar="TEXT", help="Where it is from, and its licence.")] = "",
    kind: KindOption = None,
    role: Annotated[
        Literal["assistant", "user"], typer.Option("--role", help="Whose turns of a conversation are taken.")
    ] = "assistant",
    split: Annotated[
        int | None,
        typer.Option(
            "--split", metavar="N", min=0,
            help="The longest passage in words; 0 splits nothing. Default: files to 80, rows of over 400 to 80.",
            show_default=False,
        ),
    ] = None,
    documents: Annotated[int, typer.Option("--documents", metavar="N", min=30, help="The most documents.")] = 30_000,
    seed: Annotated[int, typer.Option(help="Random seed of the draw and the order.")] = DEFAULT_ASSESS_SEED,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Make a reference for assess from real text: split, without repeats, shuffled, with the power that it gives."""
    from core.storage.atomic_files import check_writable
    from flows.data.run_storage import find_cache_folder
    from plugins.references.preparation import (
        ReferenceOptions,
        check_reference_file,
        format_reference_report,
        prepare_reference,
    )

    SESSION.quiet = quiet
    check_reference_file(out, replace=force or dry_run)
    if not dry_run:
        check_writable(out)
    sources = [name_columns(path, columns) for path in sources]
    options = ReferenceOptions(kind, role, split, documents, source, seed)
    with SESSION.exit_if_interrupted("nothing was written"):
        report = prepare_reference(sources, out, options, cache=find_cache_folder(runs_dir), write=not dry_run)
    arguments = [word for word in sys.argv[2:] if word != "--dry-run"] if dry_run else []
    print_text(report.model_dump_json() if as_json else format_reference_report(report, arguments))


@app.command("self-test", rich_help_panel=CLEAN_PANEL)
def self_test_command(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A file, or `python`.", show_default=False)],
    *,
    documents: Annotated[
        int | None,
        typer.Option(
            "--documents", metavar="N", min=10, help="Documents of a sample; default: a quarter, at most 2,000.",
            show_default=False,
        ),
    ] = None,
    kind: KindOption = None,
    seed: Annotated[int, typer.Option(help="Random seed of the samples.")] = DEFAULT_ASSESS_SEED,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Assess 200 samples of a reference, each against the rest: its false alarms. Exit 3 if more than 1 % are called collapse."""
    from flows.data.run_storage import find_cache_folder
    from plugins.references.self_test import format_self_test, run_reference_self_test

    SESSION.quiet = quiet
    with SESSION.exit_if_interrupted("the natural variation is stored, the samples are not"):
        report = run_reference_self_test(reference, documents, seed=seed, cache=find_cache_folder(runs_dir), kind=kind)
    print_text(report.model_dump_json() if as_json else format_self_test(report))
    if not report.compatible:
        raise SystemExit(GateNotMet.exit_code)
