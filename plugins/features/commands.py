"""Commands for features of a model: features, select."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.errors import INTERRUPTED_EXIT_CODE
from flows.commands.command_options import (
    CLEAN_PANEL,
    ColumnsOption,
    InputArgument,
    JsonOption,
    OutOption,
    QuietOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION, UserInterrupt

app = typer.Typer()


@app.command("features", rich_help_panel=CLEAN_PANEL)
def features_command(
    sources: Annotated[
        list[Path], typer.Argument(metavar="TEXT...", help="Real text: datasets as for assess.", show_default=False)
    ],
    out: OutOption,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="model, layer, latents, k, tokens, context, epochs; repeatable."),
    ] = None,
    *,
    columns: ColumnsOption = None,
    published: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="NAME", help="Take a published dictionary: a folder, or REPOSITORY:PATH on the Hugging Face Hub.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Train a sparse autoencoder on a layer of a model, for `gaps --by features`; or take a published one and measure it."""
    from plugins.features.dictionary_command import format_training, make_dictionary

    SESSION.quiet = quiet
    with SESSION.handle_interrupts():
        try:
            sources = [name_columns(path, columns) for path in sources]
            record = make_dictionary(sources, out, overrides or [], published, SESSION.show_unless_stopped)
        except (UserInterrupt, KeyboardInterrupt):
            print("interrupted; the same command resumes", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    if as_json:
        print_json({"state": "done", "out": str(out), **record.model_dump(mode="json")})
    else:
        print_text(format_training(record, out))


@app.command("select", rich_help_panel=CLEAN_PANEL)
def select_command(
    source: InputArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The JSONL file to write.")],
    *,
    columns: ColumnsOption = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, help="Rows to select.")],
    features: Annotated[Path, typer.Option("--features", metavar="DIR", help="A dictionary of `features`.")],
    seed: Annotated[int, typer.Option(help="Random seed of the subsets that it is compared with.")] = 7,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Select the rows that cover most features, next to random rows, random ones of equal lengths, and rows by word types."""
    from plugins.features.row_selection import format_selection, select_rows

    SESSION.quiet = quiet
    with SESSION.handle_interrupts():
        try:
            report = select_rows(name_columns(source, columns), out, rows, features, seed, SESSION.show_unless_stopped)
        except (UserInterrupt, KeyboardInterrupt):
            print("interrupted; nothing was written", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    print_text(report.model_dump_json() if as_json else format_selection(report))
