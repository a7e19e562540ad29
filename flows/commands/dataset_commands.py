"""Commands for any dataset: filter, index, assess, gaps."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.data_kinds import DataKind
from core.errors import INTERRUPTED_EXIT_CODE, GateNotMet, RunFailed, UsageError
from core.project_files import NAMED_REFERENCES, RUNS_FOLDER, find_referenced_file
from flows.commands.command_options import (
    CLEAN_PANEL,
    InputArgument,
    JsonOption,
    OptionalInputArgument,
    OptionalReferenceOption,
    OutOption,
    QuietOption,
    ReferenceOption,
    RunsOption,
    SetOption,
    load_command_plan,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION, UserInterrupt

app = typer.Typer()

DEFAULT_ASSESS_SEED = 7


@app.command("filter", rich_help_panel=CLEAN_PANEL)
def filter_command(
    source: InputArgument,
    out: OutOption,
    overrides: SetOption = None,
    *,
    filters: Annotated[
        str | None, typer.Option(metavar="TYPES", help="Filters, separated by commas, with their default options.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(metavar="RECIPE", help="Use the filters of a recipe.")] = None,
    index: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also drop rows that repeat an earlier release in this index.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that filter rows; default: one per processor.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Filter and compare on the workers of a Dask scheduler.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Drop the rows of any dataset that filters reject. Kept rows are unchanged, except for what a filter masks.

    After an interruption, the same command resumes. Other thresholds in the same folder need no second pass over the rows.
    """
    from flows.clean.dataset_filter import filter_dataset
    from flows.clean.filter_settings import apply_duplicate_index, parse_filter_settings
    from flows.report.filter_report import format_filter_card

    SESSION.quiet = quiet
    if recipe and (filters or overrides):
        raise UsageError("--recipe: brings its own filters; leave out --filters and --set")
    plan = load_command_plan(recipe, None) if recipe else None
    configs = plan.recipe.filters if plan else parse_filter_settings(overrides or [], filters)
    configs = apply_duplicate_index(configs, index) if index else configs
    with SESSION.handle_interrupts():
        try:
            report = filter_dataset(source, out, configs, plan.folder if plan else Path(), cluster or workers)
        except (UserInterrupt, KeyboardInterrupt):
            print("interrupted; finished batches are stored; the same command resumes", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    collapse = plan.recipe.collapse if plan else None
    reference = collapse.reference if collapse else None
    if plan and reference and reference not in NAMED_REFERENCES:
        reference = str(find_referenced_file(reference, plan.folder))
    print_json(report.model_dump(mode="json")) if as_json else print_text(format_filter_card(report, reference))
    if report.counts.failed:
        raise SystemExit(RunFailed.exit_code)


@app.command("index", rich_help_panel=CLEAN_PANEL)
def index_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the index.")],
    *,
    add: Annotated[Path | None, typer.Option(metavar="INPUT", help="A dataset to add.")] = None,
    name: Annotated[str | None, typer.Option(help="The name of its rows in the index; default: INPUT.")] = None,
    ngram: Annotated[int, typer.Option(min=1, max=20, help="Words per shingle.")] = 5,
    of: Annotated[
        Literal["conversation", "answer"] | None,
        typer.Option(help="Which part of a conversation is added; default: all of it.", show_default=False),
    ] = None,
    to_datasketch: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write MinHash signatures of the rows of --add, for datasketch.")
    ] = None,
    from_datasketch: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add the rows of a file that --to-datasketch or save_lsh wrote.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Maintain an index of released rows for `filter --index`. Without --add, print its contents."""
    from flows.clean.index_building import (
        add_to_duplicate_index,
        describe_duplicate_index,
        import_datasketch_file,
        write_datasketch_file,
    )

    SESSION.quiet = quiet
    added = 0
    if to_datasketch and not add:
        raise UsageError("--to-datasketch: an index stores no MinHash signatures; name the rows with --add")
    with SESSION.handle_interrupts():
        if add:
            source_name = name or str(add)
            added = add_to_duplicate_index(folder, add, source_name, ngram, SESSION.print_unless_stopped, of)
            if to_datasketch:
                part = describe_duplicate_index(folder, ngram)["of"]
                write_datasketch_file(to_datasketch, add, source_name, ngram, part)
        if from_datasketch:
            added += import_datasketch_file(folder, from_datasketch, name or str(from_datasketch), ngram, of)
    record = describe_duplicate_index(folder, ngram)
    if as_json:
        print_json({"index": str(folder), "added": added, **record})
        return
    print_text(f"index {folder}  {record['documents']:,} rows (of = {record['of']}), {record['bytes']:,} bytes")
    for source, count in record["sources"].items():
        print_text(f"  {source}  {count:,}")
    from flows.terminal.suggested_commands import format_command

    print_text(
        f"hint: drop rows that repeat it: {format_command('filter', 'INPUT', '--out', 'DIR', '--index', str(folder))}"
    )


@app.command("assess", rich_help_panel=CLEAN_PANEL)
def assess_command(
    source: OptionalInputArgument = None,
    reference: OptionalReferenceOption = None,
    *,
    parent: Annotated[
        Path | None, typer.Option("--parent", help="The dataset that it extends: a run, a folder or a file.")
    ] = None,
    kind: Annotated[
        DataKind | None,
        typer.Option(help="What is counted in both; default: found from the rows.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="PAGE", help="An HTML file to write.")] = None,
    self_test: Annotated[
        str | None,
        typer.Option(
            "--self-test", metavar="REF", help="Instead of a dataset, assess 200 samples of a reference: its false alarms."
        ),
    ] = None,
    documents: Annotated[
        int | None,
        typer.Option(
            "--documents", metavar="N", min=10, help="Documents of a sample of --self-test; default: a quarter, at most 2,000.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for sampling the reference.")] = DEFAULT_ASSESS_SEED,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Measure repetition in a dataset, or compare it with real text and its parent. Exit 3 on collapse, 0 if inconclusive.

    With --self-test, exit 3 if more than 1 % of real samples are called collapse.
    """
    SESSION.quiet = quiet
    if self_test:
        if source or reference or parent or out:
            raise UsageError(
                "--self-test: assesses the reference alone; leave out INPUT, --reference, --parent and --out"
            )
        run_self_test_command(self_test, documents, kind, seed, runs_dir, as_json=as_json)
        return
    if source is None:
        raise UsageError("INPUT: name a dataset, or a reference with --self-test")
    if documents:
        raise UsageError("--documents: only with --self-test")
    from core.runs.records import CollapseVerdict
    from flows.data.run_storage import find_cache_folder
    from flows.evaluate.dataset_assessment import assess_dataset, format_assessment, suggest_after_assessment
    from flows.terminal.suggested_commands import build_runs_dir_arguments

    cache = find_cache_folder(runs_dir)
    assessment = assess_dataset(source, reference, seed, parent=parent, cache=cache, kind=kind)
    if out:
        from flows.report.collapse_page import write_assessment_page

        write_assessment_page(out, source, assessment)
    if as_json:
        print_json(
            {
                "state": "done",
                "verdict": assessment.verdict,
                "headline": assessment.worse.headline,
                "paragraph": assessment.worse.paragraph,
                "advice": [advice.model_dump() for advice in assessment.advice],
                "gates": assessment.collapse_reasons,
                **assessment.model_dump(mode="json"),
            }
        )
    else:
        options = {
            "--reference": reference,
            "--parent": parent,
            "--kind": kind,
            "--seed": None if seed == DEFAULT_ASSESS_SEED else seed,
        }
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        arguments = [str(source), *given, *build_runs_dir_arguments(runs_dir)]
        hint = suggest_after_assessment(source, assessment, arguments, has_page=out is not None)
        print_text("\n".join([*format_assessment(assessment), *([hint] if hint else [])]))
    if assessment.verdict is CollapseVerdict.collapse:
        raise SystemExit(GateNotMet.exit_code)


def run_self_test_command(
    name: str, documents: int | None, kind: DataKind | None, seed: int, runs_dir: str, *, as_json: bool
) -> None:
    from flows.data.run_storage import find_cache_folder
    from flows.evaluate.reference_self_test import format_self_test, run_reference_self_test

    with SESSION.handle_interrupts():
        try:
            report = run_reference_self_test(name, documents, seed=seed, cache=find_cache_folder(runs_dir), kind=kind)
        except (UserInterrupt, KeyboardInterrupt):
            print("interrupted; the natural variation is stored, the samples are not", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    print_text(report.model_dump_json() if as_json else format_self_test(report))
    if not report.compatible:
        raise SystemExit(GateNotMet.exit_code)


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
    out: Annotated[Path, typer.Option("--out", metavar="REF", help="The Parquet file to write.")],
    source: Annotated[str, typer.Option("--source", metavar="TEXT", help="Where it is from, and its licence.")] = "",
    kind: Annotated[
        DataKind | None, typer.Option("--kind", help="What it is; default: found from the texts.", show_default=False)
    ] = None,
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
    from flows.evaluate.reference_preparation import ReferenceOptions, format_reference_report, prepare_reference

    if out.suffix != ".parquet":
        raise UsageError(
            f"{out}: must end in .parquet, which also stores kind, source and counts; every command reads it"
        )
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; name a file")
    if out.exists() and not force and not dry_run:
        raise UsageError(f"{out}: exists already; name another file, or replace it with --force")
    SESSION.quiet = quiet
    if not dry_run:
        check_writable(out)
    options = ReferenceOptions(kind, role, split, documents, source, seed)
    with SESSION.handle_interrupts():
        try:
            report = prepare_reference(sources, out, options, cache=find_cache_folder(runs_dir), write=not dry_run)
        except (UserInterrupt, KeyboardInterrupt):
            print("interrupted; nothing was written", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    arguments = [word for word in sys.argv[2:] if word != "--dry-run"] if dry_run else []
    print_text(report.model_dump_json() if as_json else format_reference_report(report, arguments))


@app.command("gaps", rich_help_panel=CLEAN_PANEL)
def gaps_command(
    source: InputArgument,
    reference: ReferenceOption,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="SEEDS", help="A JSONL file of seeds for the missing topics and words."),
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="Maximum number of seeds.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Find topics and words that real text has and a dataset lacks, and write seeds from them for the next run."""
    from flows.evaluate.dataset_gaps import find_dataset_gaps, format_dataset_gaps

    gaps = find_dataset_gaps(source, reference, out, number)
    print_text(gaps.model_dump_json() if as_json else format_dataset_gaps(gaps, number))
