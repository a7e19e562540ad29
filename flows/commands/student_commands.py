"""Commands for a student: train, export, evaluate."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import UsageError
from core.plugins import find_part
from core.project_files import RUNS_FOLDER
from core.shared_options import DEFAULT_GGUF_TYPE, DEFAULT_PANEL
from flows.commands.command_options import (
    STUDENT_PANEL,
    ColumnsOption,
    InputArgument,
    JsonOption,
    OutOption,
    QuietOption,
    RecipeOption,
    RunsOption,
    SetOption,
    StudentArgument,
    TypeOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION, is_reporting_process

app = typer.Typer()
DataOption = Annotated[
    Path | None,
    typer.Option(
        metavar="INPUT", help="Your own rows in place of seeds; rows that the student was trained on are left out."
    ),
]
CheckOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With --data: `exact` (the row's answer, ignoring white space), a built-in check, or FILE.py:NAME (executed).",
    ),
]


@app.command("distill", rich_help_panel=STUDENT_PANEL)
def distill_command(
    source: InputArgument,
    out: OutOption,
    overrides: SetOption = None,
    *,
    columns: ColumnsOption = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 7,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a student on a run or any dataset. `--set` takes the keys of the student table, as in `--set epochs=2`."""
    from flows.run.dataset_distillation import distill_dataset, parse_student_settings
    from flows.terminal.suggested_commands import format_next_line
    from flows.terminal.text_format import advise_on_truncation

    SESSION.quiet = quiet or not is_reporting_process()
    source = name_columns(source, columns)
    with SESSION.exit_if_interrupted("the same command resumes from the last checkpoint, if there is one"):
        config = parse_student_settings(overrides or [])
        record = distill_dataset(source, out, config, seed, SESSION.print_unless_stopped)
    if not is_reporting_process():
        return
    if as_json:
        print_json({"out": str(out), "state": "done", "student": record.model_dump(mode="json")})
        return
    kl = "" if record.kl_after is None else f", KL from the teacher {record.kl_before:.2f} -> {record.kl_after:.2f}"
    kl += "".join(f", {note}" for note in record.start_notes)
    print_text(
        f"student {out}  held-out loss {record.loss_before:.2f} -> {record.loss_after:.2f} nats per assistant token{kl}"
    )
    if advice := advise_on_truncation(record.truncation, "max_tokens"):
        print_text(advice)
    print_text(
        format_next_line("evaluate", str(out), "--data", str(source), *(["--columns", columns] if columns else []))
    )


@app.command("export", rich_help_panel=STUDENT_PANEL)
def export_command(
    student: StudentArgument,
    *,
    form: Annotated[
        Literal["gguf"], typer.Option("--format", help="The file format; llama.cpp and similar runtimes load gguf.")
    ] = "gguf",
    kind: TypeOption = DEFAULT_GGUF_TYPE,
    as_json: JsonOption = False,
) -> None:
    """Export a student as one file for other runtimes, next to the student: weights, tokenizer and chat template."""
    from flows.data.student_files import export_student
    from flows.terminal.suggested_commands import format_next_line

    found = export_student(student, kind)
    if as_json:
        projector = {"projector": str(found.projector)} if found.projector else {}
        print_json(
            {"state": "done", "format": form, "type": kind, "path": str(found.path), "bytes": found.bytes, **projector}
        )
        return
    print_text(f"{found.path}  {found.bytes / 1e6:.1f} MB, {found.parameters / 1e6:.1f}M parameters")
    if found.projector:
        print_text(f"{found.projector}  its embedder of images, which belongs next to it")
    print_text(f'hint: as a teacher in a recipe: model = "local/{found.path}"')
    if find_part("command", "serve"):
        print_text(format_next_line("serve", str(found.path)))


@app.command(rich_help_panel=STUDENT_PANEL)
def evaluate(
    student: StudentArgument,
    *,
    recipe: RecipeOption = None,
    number: Annotated[
        int, typer.Option("-n", min=1, max=100_000, help="Number of held-out seeds, or of rows of --data.")
    ] = 100,
    kind: TypeOption = DEFAULT_GGUF_TYPE,
    tasks: Annotated[
        str, typer.Option(help="Tasks of lm-evaluation-harness too, by name or .yaml file, separated by commas.")
    ] = "",
    rows: Annotated[
        int | None, typer.Option("--task-rows", min=1, help="The first N rows of each task; default: all.")
    ] = None,
    panel: Annotated[
        int,
        typer.Option(
            min=0, max=10_000, help="Tasks that the recipe does not train, which show what was forgotten; 0: none."
        ),
    ] = DEFAULT_PANEL,
    data: DataOption = None,
    columns: ColumnsOption = None,
    check: CheckOption = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With --check: an option of the check; repeatable."),
    ] = None,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the recipe's checks on a student, its teacher and its start; measure loss and size.

    With --data: student and start on held-out rows of a dataset, by loss and, with --check, by pass rate. A student that sees is
    asked with the picture, blind and with another picture.
    """
    from flows.evaluate.dataset_evaluation import choose_evaluation
    from flows.evaluate.evaluation_options import EvaluationOptions

    SESSION.quiet = quiet
    if columns and data is None:
        raise UsageError("--columns: names columns of --data; give both")
    data = data and name_columns(data, columns)
    options = EvaluationOptions(number, kind, recipe, tasks, rows, data, check, overrides or [], runs_dir, panel)
    evaluation = choose_evaluation(student, options)
    found = SESSION.run_interruptibly(evaluation.measure(student, options, SESSION))
    print_text(found.model_dump_json() if as_json else evaluation.format(found))
