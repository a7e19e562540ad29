"""Commands for a student: train and evaluate."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import UsageError
from core.project_files import RUNS_FOLDER
from core.shared_options import DEFAULT_GGUF_TYPE, DEFAULT_PANEL
from flows.commands.command_options import (
    STUDENT_PANEL,
    ColumnsOption,
    InputArgument,
    JsonOption,
    OptionalOutOption,
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

if TYPE_CHECKING:
    from students.training_row import TokenRow, TrainingRow

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

LEARNED_BRACKETS = "\u27e6", "\u27e7"
GREEN, PLAIN = "\x1b[32m", "\x1b[0m"


@app.command("distill", rich_help_panel=STUDENT_PANEL)
def distill_command(
    source: InputArgument,
    out: OptionalOutOption = None,
    overrides: SetOption = None,
    *,
    row: Annotated[
        int | None,
        typer.Option("--show-row", min=1, metavar="N", help="Train nothing; show row N as the model would see it."),
    ] = None,
    columns: ColumnsOption = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 7,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a student on a run or any dataset. `--set` takes the keys of the student table, as in `--set epochs=2`."""
    from flows.run.dataset_distillation import distill_dataset, parse_student_settings, show_training_row
    from flows.terminal.suggested_commands import format_next_line
    from flows.terminal.text_format import advise_on_truncation

    SESSION.quiet = quiet or not is_reporting_process()
    source = name_columns(source, columns)
    if row:
        shown = show_training_row(source, parse_student_settings(overrides or []), seed, row)
        print_text(shown.model_dump_json() if as_json else _format_training_row(shown, color=sys.stdout.isatty()))
        return
    if out is None:
        raise UsageError("--out: name the folder to write, or show a row of the training with --show-row N")
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
    if record.left_out:
        print_text("left out: " + ", ".join(f"{count} ({reason})" for reason, count in record.left_out.items()))
    print_text(
        format_next_line("evaluate", str(out), "--data", str(source), *(["--columns", columns] if columns else []))
    )


def _format_training_row(row: "TrainingRow", *, color: bool) -> str:
    """Learned tokens are green with `color`, otherwise in brackets."""
    marks = (GREEN, PLAIN) if color else LEARNED_BRACKETS
    lines = [
        f"row {row.number}  {row.use}",
        f"chat template of {row.start}, digest {row.template}; learned tokens are "
        f"{marks[0]}{'green' if color else 'so'}{marks[1]}",
    ]
    sides = ("better answer", "worse answer") if len(row.rows) > 1 else ("text",)
    for side, shown in zip(sides, row.rows, strict=False):
        cut = f"truncated, {shown.cut:,} tokens lost" if shown.cut else "not truncated"
        lines += [
            f"{side}: {shown.tokens:,} tokens, {shown.learned:,} learned, {cut}",
            "",
            _mark_learned(shown, marks),
            "",
        ]
    return "\n".join(lines).rstrip()


def _mark_learned(row: "TokenRow", marks: tuple[str, str]) -> str:
    from flows.terminal.text_format import replace_unsafe_characters

    shown = ((span.learned, replace_unsafe_characters(span.text)) for span in row.spans)
    return "".join(f"{marks[0]}{text}{marks[1]}" if learned else text for learned, text in shown)


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
