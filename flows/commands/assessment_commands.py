"""`stillhouse assess`: a dataset compared with real text."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import GateNotMet
from core.project_files import RUNS_FOLDER
from core.shared_options import DEFAULT_ASSESS_SEED
from flows.commands.command_options import (
    CLEAN_PANEL,
    ColumnsOption,
    InputArgument,
    JsonOption,
    KindOption,
    OptionalReferenceOption,
    QuietOption,
    RunsOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION

app = typer.Typer()


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
