"""The general panel in words: what a student lost, with intervals. Measures nothing."""

from core.runs.student_records import GeneralPanelRecord, PairedComparison
from flows.terminal.text_format import format_percent

PANEL_ROLES = ("teacher", "start", "student")


def describe_general_loss(comparison: PairedComparison) -> str:
    """The student's loss against its start in points, by the interval: `loses 3 to 9 points`, `no certain loss`, or a gain."""
    low, high = 100 * comparison.difference.low, 100 * comparison.difference.high
    if high < 0:
        return f"loses {-high:.0f} to {-low:.0f} points" if high <= -0.5 else f"loses up to {-low:.0f} points"
    if low > 0:
        return f"gains {low:.0f} to {high:.0f} points" if low >= 0.5 else f"gains up to {high:.0f} points"
    return f"no certain loss ({low:+.0f} to {high:+.0f} points)"


def describe_answer_lengths(panel: GeneralPanelRecord) -> str:
    """The length of the student's answers to open questions, next to its start's."""
    student, start = panel.find_model("student"), panel.find_model("start")
    if student is None:
        return ""
    against = f", start {start.words:.0f}" if start else ""
    return f"answers to open questions: {student.words:.0f} words{against}"


def describe_divergence(panel: GeneralPanelRecord) -> str:
    """In nats per token."""
    if panel.divergence is None:
        return ""
    return f"divergence {panel.divergence.format(lambda value: f'{value:.2f}')}"


def list_panel_lines(panel: GeneralPanelRecord) -> list[str]:
    """Pass rates in a line, then the loss, then lengths and divergence."""
    models = [model for role in PANEL_ROLES if (model := panel.find_model(role))]
    rates = ", ".join(f"{model.role} {model.pass_rate.format(format_percent)}" for model in models)
    lines = [f"{panel.tasks} tasks that the recipe does not train: {rates}"]
    if panel.comparison:
        lines.append(f"student {describe_general_loss(panel.comparison)} against its start")
    said = "; ".join(filter(None, (describe_answer_lengths(panel), describe_divergence(panel))))
    return [*lines, *([f"{said} nats per token from the start" if panel.divergence else said] if said else [])]


def list_panel_card_lines(panel: GeneralPanelRecord) -> list[str]:
    """Two short lines for the card of a run."""
    start, student = panel.find_model("start"), panel.find_model("student")
    rates = [f"{model.role} {format_percent(model.pass_rate.value)}" for model in (start, student) if model]
    loss = f": {describe_general_loss(panel.comparison)}" if panel.comparison else ""
    said = "; ".join(filter(None, (describe_answer_lengths(panel), describe_divergence(panel))))
    return [f"{panel.tasks} tasks that it did not train, {', '.join(rates)}{loss}", said]
