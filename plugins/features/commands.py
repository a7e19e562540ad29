"""Commands about what a dataset lacks: gaps, features, feature-gaps, select."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from core.errors import INTERRUPTED_EXIT_CODE
from core.project_files import RUNS_FOLDER
from core.stop_signal import RunStopped
from flows.commands.command_options import (
    CLEAN_PANEL,
    ColumnsOption,
    InputArgument,
    JsonOption,
    KindOption,
    OutOption,
    QuietOption,
    ReferenceOption,
    RunsOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION, UserInterrupt

FeaturesOption = Annotated[Path, typer.Option("--features", metavar="DIR", help="A dictionary of `features`.")]

app = typer.Typer()


@app.command("gaps", rich_help_panel=CLEAN_PANEL)
def gaps_command(
    source: InputArgument,
    reference: ReferenceOption,
    *,
    columns: ColumnsOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="SEEDS", help="A JSONL file of seeds for what is missing."),
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="Maximum number of seeds.")] = 100,
    kind: KindOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Find topics and words (of code, tokens) that real text has and a dataset lacks, and write seeds for the next run."""
    SESSION.quiet = quiet
    source = name_columns(source, columns)
    from plugins.features.dataset_gaps import find_dataset_gaps, format_dataset_gaps

    gaps = find_dataset_gaps(source, reference, out, number, kind)
    print_text(gaps.model_dump_json() if as_json else format_dataset_gaps(gaps, number))


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
    """Train a sparse autoencoder on a layer of a model, for `feature-gaps`; or take a published one and measure it."""
    from plugins.features.feature_dictionary import format_training, make_dictionary

    SESSION.quiet = quiet
    with SESSION.exit_if_interrupted("the same command resumes"):
        sources = [name_columns(path, columns) for path in sources]
        record = make_dictionary(sources, out, overrides or [], published, SESSION.show_unless_stopped)
    if as_json:
        print_json({"state": "done", "out": str(out), **record.model_dump(mode="json")})
    else:
        print_text(format_training(record, out))


@app.command("feature-gaps", rich_help_panel=CLEAN_PANEL)
def feature_gaps_command(
    source: InputArgument,
    reference: ReferenceOption,
    features: FeaturesOption,
    *,
    columns: ColumnsOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="SEEDS", help="A JSONL file of seeds for what is missing."),
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="Maximum number of seeds.")] = 100,
    documents: Annotated[
        int, typer.Option("--documents", metavar="N", min=10, help="The most documents of a side.")
    ] = 2_000,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="PAGE", help="An HTML file to write.", show_default=False)
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", metavar="RECIPE", help="The recipe whose generator's teacher explains the features.",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Find forms of text that real text has and a dataset lacks, by the features of a model: brackets, digits, colons, code.

    Words and topics are found by `gaps`.
    """
    from plugins.features.feature_gaps import find_dataset_feature_gaps
    from plugins.features.feature_gaps_report import format_feature_gaps

    SESSION.quiet = quiet
    source = name_columns(source, columns)
    if page:
        from core.storage.atomic_files import check_writable

        check_writable(page)
    explain = None
    if labels:
        from flows.data.run_storage import find_cache_folder
        from flows.recipes.recipe_catalog import load_recipe_plan
        from plugins.features.feature_labelling import label_by_teacher

        plan, cache = load_recipe_plan(labels), find_cache_folder(runs_dir)
        explain = partial(label_by_teacher, plan=plan, folder=features, cache=cache)

    with SESSION.handle_interrupts():
        try:
            gaps = find_dataset_feature_gaps(
                source, reference, features, out, number, documents, SESSION.show_unless_stopped, explain
            )
        except RunStopped:
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
        except (UserInterrupt, KeyboardInterrupt):
            print("interrupted; nothing was written", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    if page:
        from plugins.features.feature_gaps_report import write_feature_gaps_page

        write_feature_gaps_page(page, gaps)
    print_text(gaps.model_dump_json() if as_json else format_feature_gaps(gaps, number))


@app.command("select", rich_help_panel=CLEAN_PANEL)
def select_command(
    source: InputArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The JSONL file to write.")],
    *,
    columns: ColumnsOption = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, help="Rows to select.")],
    features: FeaturesOption,
    seed: Annotated[int, typer.Option(help="Random seed of the subsets that it is compared with.")] = 7,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Select the rows that cover most features, next to random rows, random ones of equal lengths, and rows by word types."""
    from plugins.features.row_selection import format_selection, select_rows

    SESSION.quiet = quiet
    with SESSION.exit_if_interrupted("nothing was written"):
        report = select_rows(name_columns(source, columns), out, rows, features, seed, SESSION.show_unless_stopped)
    print_text(report.model_dump_json() if as_json else format_selection(report))
