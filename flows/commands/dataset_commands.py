"""Commands that clean and assess any dataset: filter, index, assess, and `curate` for a finished run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import GateNotMet, RunFailed, UsageError
from core.project_files import NAMED_REFERENCES, RUNS_FOLDER, find_referenced_file
from core.shared_options import DEFAULT_ASSESS_SEED
from flows.commands.command_options import (
    CLEAN_PANEL,
    ColumnsOption,
    InputArgument,
    JsonOption,
    KindOption,
    OptionalReferenceOption,
    OutOption,
    QuietOption,
    RunArgument,
    RunsOption,
    SetOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION

app = typer.Typer()


@app.command("filter", rich_help_panel=CLEAN_PANEL)
def filter_command(
    source: InputArgument,
    out: OutOption,
    overrides: SetOption = None,
    *,
    columns: ColumnsOption = None,
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
    min_kept: Annotated[
        int, typer.Option(metavar="ROWS", min=0, help="Exit with 1 if fewer rows are kept; their files are written.")
    ] = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Drop the rows of any dataset that filters reject. Kept rows are unchanged, except for what a filter masks.

    After an interruption, the same command resumes. Other thresholds in the same folder need no second pass over the rows.
    """
    from flows.clean.dataset_filter import apply_duplicate_index, filter_dataset, parse_filter_settings
    from flows.report.filter_report import format_filter_card

    SESSION.quiet = quiet
    source = name_columns(source, columns)
    if recipe and (filters or overrides):
        raise UsageError("--recipe: brings its own filters; leave out --filters and --set")
    from flows.recipes.recipe_catalog import load_recipe_plan

    plan = load_recipe_plan(recipe) if recipe else None
    configs = plan.recipe.filters if plan else parse_filter_settings(overrides or [], filters)
    configs = apply_duplicate_index(configs, index) if index else configs
    with SESSION.exit_if_interrupted("finished batches are stored; the same command resumes"):
        report = filter_dataset(source, out, configs, plan.folder if plan else Path(), cluster or workers)
    collapse = plan.recipe.collapse if plan else None
    reference = collapse.reference if collapse else None
    if plan and reference and reference not in NAMED_REFERENCES:
        reference = str(find_referenced_file(reference, plan.folder))
    print_json(report.model_dump(mode="json")) if as_json else print_text(
        format_filter_card(report, reference, columns)
    )
    if report.counts.kept < min_kept:
        taken = ", ".join(f"{step.filter} {step.dropped:,}" for step in report.steps if step.dropped)
        raise RunFailed(
            f"{report.counts.kept:,} of {report.counts.candidates:,} rows were kept, fewer than --min-kept {min_kept:,}"
            f"{f' (dropped by {taken})' if taken else ''}; read {out / 'report.html'}, then change the filters or --min-kept"
        )
    if report.counts.failed:
        raise SystemExit(RunFailed.exit_code)


@app.command("index", rich_help_panel=CLEAN_PANEL)
def index_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the index.")],
    *,
    columns: ColumnsOption = None,
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
        Path | None, typer.Option(metavar="FILE", help="Add the rows of a file that --to-datasketch wrote.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Maintain an index of released rows for `filter --index`. Without --add, print its contents."""
    from flows.clean.dataset_filter import (
        add_to_duplicate_index,
        describe_duplicate_index,
        import_datasketch_file,
        write_datasketch_file,
    )

    SESSION.quiet = quiet
    added = 0
    if to_datasketch or from_datasketch:
        import datasketch  # noqa: F401  # it may be missing, which is said before anything is written
    if to_datasketch and not add:
        raise UsageError("--to-datasketch: an index stores no MinHash signatures; name the rows with --add")
    with SESSION.handle_interrupts():
        if add:
            add = name_columns(add, columns)
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
    from flows.run.dataset_stages import curate_again
    from flows.terminal.run_summary import format_run_card
    from flows.terminal.suggested_commands import build_resume_command, suggest_next_command

    SESSION.quiet = quiet
    storage = open_run_storage(runs_dir)
    run = storage.find_run(run_name)
    with SESSION.exit_if_interrupted("the same command curates the run again"):
        curated = curate_again(run, storage)
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


@app.command("assess", rich_help_panel=CLEAN_PANEL)
def assess_command(
    source: InputArgument,
    reference: OptionalReferenceOption = None,
    *,
    columns: ColumnsOption = None,
    parent: Annotated[
        Path | None, typer.Option("--parent", help="The dataset that it extends: a run, a folder or a file.")
    ] = None,
    kind: KindOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="PAGE", help="An HTML file to write.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed for sampling the reference.")] = DEFAULT_ASSESS_SEED,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure repetition in a dataset, or compare it with real text and its parent. Exit 3 on collapse, 0 if inconclusive."""
    from core.runs.records import CollapseVerdict
    from flows.data.run_storage import find_cache_folder
    from flows.evaluate.dataset_assessment import assess_dataset, format_assessment, suggest_after_assessment
    from flows.terminal.suggested_commands import build_runs_dir_arguments

    SESSION.quiet = quiet
    earlier, source = parent and name_columns(parent, columns), name_columns(source, columns)
    assessment = assess_dataset(source, reference, seed, parent=earlier, cache=find_cache_folder(runs_dir), kind=kind)
    if out:
        from flows.report.pages import write_assessment_page

        write_assessment_page(out, source, assessment)
    if as_json:
        worse = assessment.worse
        print_json(
            {
                "state": "done",
                "verdict": assessment.verdict,
                "headline": worse.headline,
                "paragraph": worse.paragraph,
                "advice": [advice.model_dump() for advice in assessment.advice],
                "gates": assessment.collapse_reasons,
                **assessment.model_dump(mode="json"),
            }
        )
    else:
        options = {
            "--reference": reference, "--parent": earlier, "--kind": kind, "--columns": columns,
            "--seed": None if seed == DEFAULT_ASSESS_SEED else seed,
        }  # fmt: skip
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        arguments = [str(source), *given, *build_runs_dir_arguments(runs_dir)]
        hint = suggest_after_assessment(source, assessment, arguments, has_page=out is not None)
        print_text("\n".join([*format_assessment(assessment), *([hint] if hint else [])]))
    if assessment.verdict is CollapseVerdict.collapse:
        raise SystemExit(GateNotMet.exit_code)
