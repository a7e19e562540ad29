"""Commands for decisions: make a decision student, import chat logs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.commands.command_options import (
    STUDENT_PANEL,
    ColumnsOption,
    InputArgument,
    JsonOption,
    OutOption,
    QuietOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION

app = typer.Typer()


@app.command("decisions", rich_help_panel=STUDENT_PANEL)
def decisions_command(
    source: InputArgument,
    out: OutOption,
    *,
    columns: ColumnsOption = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file with `[[questions]]`, or a recipe of the family `decisions`; default: of the run, or one question "
            "about the column `label`.",
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows that people labeled, to evaluate on too.")
    ] = None,
    agreement: Annotated[
        float,
        typer.Option(
            "--target", min=0.5, max=0.999, help="The least share of its answers that agree with the teacher."
        ),
    ] = 0.95,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="The probability with which the target is met.")
    ] = 0.95,
    calibration: Annotated[
        Literal["held-out", "cross"],
        typer.Option(
            help="Test thresholds on texts of their own, with an exact bound, or on out-of-fold predictions of all texts: no "
            "proof, for few labels."
        ),
    ] = "held-out",
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="`minilm` (packaged: meaning), `ngrams` (spelling, fastest), `minilm+ngrams` (both), a folder or OWNER/NAME "
            "of an encoder of Transformers, or a generative student's .gguf file.",
        ),
    ] = "minilm+ngrams",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 7,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a student that answers typed questions about a text: fit it to a teacher's labels, and certify when to trust it."""
    from flows.terminal.suggested_commands import format_next_line
    from plugins.serving.decision_students.agreement_bound import AgreementTarget
    from plugins.serving.decisions.student_creation import DecisionSettings, create_decision_student
    from plugins.serving.decisions.student_report import format_decision_report, write_decision_page

    SESSION.quiet = quiet
    target = AgreementTarget(agreement=agreement, confidence=confidence)
    source, test = name_columns(source, columns), test and name_columns(test, columns)
    settings = DecisionSettings(source, out, questions, test, encoder, target, calibration, seed)
    with SESSION.handle_interrupts():
        report = create_decision_student(settings, SESSION.print_unless_stopped)
    page = write_decision_page(out, report)
    if as_json:
        print_json({"state": "done", "out": str(out), **report.model_dump(mode="json")})
        return
    print_text(format_decision_report(report))
    print_text(f"  {page}")
    print_text(format_next_line("serve", str(out)))
