"""The output of `stillhouse evaluate` by a recipe. Measures nothing."""

from pathlib import Path

from core.runs.student_records import PairedComparison
from flows.data.student_files import STUDENT_EVALUATION_FILE
from flows.evaluate.student_results import StudentEvaluation
from flows.terminal.run_summary import list_panel_lines
from flows.terminal.text_format import format_one_line, format_percent, format_table


def format_student_evaluation(evaluation: StudentEvaluation) -> str:
    """The output of `stillhouse evaluate`."""
    lines = [f"student {evaluation.student}  {evaluation.type}"]
    if evaluation.seeds:
        seeds = f"{evaluation.seeds} held-out seeds, from number {evaluation.first_seed}"
        lines.append(f"  {evaluation.recipe}: {seeds}; one attempt each, no examples")
    heads = ("", "passed", "95 %", "nats/token", "bits/byte", "MB")
    table = [heads]
    for row in evaluation.rows:
        rate = row.pass_rate
        table.append(
            (
                row.role,
                f"{row.passed} of {evaluation.seeds}, {format_percent(rate.value)}" if rate else "-",
                f"{format_percent(rate.low)} to {format_percent(rate.high)}" if rate else "-",
                _format_optional(row.nats_per_token, ".3f"),
                _format_optional(row.bits_per_byte, ".3f"),
                _format_optional(row.bytes and row.bytes / 1e6, ",.1f"),
            )
        )
    lines += format_table(table)
    if evaluation.retention:
        lines.append(
            f"  retention {evaluation.retention.format(lambda value: f'{value:.2f}')} of the teacher's pass rate"
        )
    for comparison in evaluation.comparisons:
        lines.append(f"  {format_paired_comparison(comparison)}")
    if evaluation.panel:
        first, *rest = list_panel_lines(evaluation.panel)
        lines += [f"  general panel: {first}", *(f"    {line}" for line in rest)]
    for task in evaluation.tasks:
        scores = "   ".join(
            f"{role} {score.value:.3f} ({score.low:.3f} to {score.high:.3f})" for role, score in task.scores.items()
        )
        lines.append(f"  {task.task}, {task.metric}, {task.rows} rows: {scores}")
    for row in evaluation.rows:
        if row.faults:
            faults = "   ".join(f"{format_one_line(name, 40)} {count}" for name, count in list(row.faults.items())[:6])
            lines.append(f"  {row.role} not passed: {faults}")
    lines += [f"  {note}" for note in evaluation.notes]
    return "\n".join([*lines, f"  {Path(evaluation.student) / STUDENT_EVALUATION_FILE}"])


def format_paired_comparison(comparison: PairedComparison) -> str:
    """The difference of two pass rates on the same requests, in percentage points, in a line."""
    value, low, high = (
        f"{100 * x:+.0f}" for x in (comparison.difference.value, comparison.difference.low, comparison.difference.high)
    )
    return f"student minus {comparison.role}: {value} points ({low} to {high}), {comparison.conclusion}"


def _format_optional(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
