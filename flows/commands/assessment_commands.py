"""Commands that compare a dataset with real text: assess, reference, gaps."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from core.errors import INTERRUPTED_EXIT_CODE, GateNotMet, UsageError
from core.project_files import RUNS_FOLDER
from core.shared_options import DEFAULT_ASSESS_SEED, DataKind
from flows.commands.command_options import (
    CLEAN_PANEL,
    ColumnsOption,
    InputArgument,
    JsonOption,
    KindOption,
    OptionalInputArgument,
    OptionalReferenceOption,
    QuietOption,
    ReferenceOption,
    RunsOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION, UserInterrupt

if TYPE_CHECKING:
    from core.runs.collapse_assessment import CollapseAssessment

app = typer.Typer()


@app.command("assess", rich_help_panel=CLEAN_PANEL)
def assess_command(
    source: OptionalInputArgument = None,
    reference: OptionalReferenceOption = None,
    *,
    columns: ColumnsOption = None,
    parent: Annotated[
        Path | None, typer.Option("--parent", help="The dataset that it extends: a run, a folder or a file.")
    ] = None,
    kind: KindOption = None,
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
    elif source is None:
        raise UsageError("INPUT: name a dataset, or a reference with --self-test")
    elif documents:
        raise UsageError("--documents: only with --self-test")
    else:
        earlier = parent and name_columns(parent, columns)
        options = AssessOptions(reference, earlier, kind, seed, out, runs_dir, columns)
        run_assess_command(name_columns(source, columns), options, as_json=as_json)


class AssessOptions(NamedTuple):
    """How a dataset is assessed, and where its page and the null distributions are written."""

    reference: str | None
    parent: Path | None
    kind: DataKind | None
    seed: int
    out: Path | None
    runs_dir: str
    columns: str | None = None

    def list_arguments(self) -> list[str]:
        """Those that change the assessment, as arguments of the command."""
        options = {
            "--reference": self.reference,
            "--parent": self.parent,
            "--kind": self.kind,
            "--columns": self.columns,
            "--seed": None if self.seed == DEFAULT_ASSESS_SEED else self.seed,
        }
        return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def run_assess_command(source: Path, options: AssessOptions, *, as_json: bool) -> None:
    """Assess a dataset, print the result, and exit with 3 on collapse."""
    from core.runs.records import CollapseVerdict
    from flows.data.run_storage import find_cache_folder
    from flows.evaluate.dataset_assessment import assess_dataset, format_assessment, suggest_after_assessment
    from flows.terminal.suggested_commands import build_runs_dir_arguments

    assessment = assess_dataset(
        source,
        options.reference,
        options.seed,
        parent=options.parent,
        cache=find_cache_folder(options.runs_dir),
        kind=options.kind,
    )
    if options.out:
        from flows.report.collapse_page import write_assessment_page

        write_assessment_page(options.out, source, assessment)
    if as_json:
        print_assessment_json(assessment)
    else:
        arguments = [str(source), *options.list_arguments(), *build_runs_dir_arguments(options.runs_dir)]
        hint = suggest_after_assessment(source, assessment, arguments, has_page=options.out is not None)
        print_text("\n".join([*format_assessment(assessment), *([hint] if hint else [])]))
    if assessment.verdict is CollapseVerdict.collapse:
        raise SystemExit(GateNotMet.exit_code)


def print_assessment_json(assessment: "CollapseAssessment") -> None:
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
    from flows.evaluate.reference_preparation import (
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
    from flows.evaluate.dataset_gaps import find_dataset_gaps, format_dataset_gaps

    gaps = find_dataset_gaps(source, reference, out, number, kind)
    print_text(gaps.model_dump_json() if as_json else format_dataset_gaps(gaps, number))
