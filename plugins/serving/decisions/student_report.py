"""The report of a decision student: text for the terminal, and a page with coverage against risk. Measures nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from core.storage.atomic_files import write_text
from flows.report.pages import Tick, create_page_environment, create_plot_area, list_round_values
from flows.terminal.text_format import format_duration, format_percent, format_table
from plugins.serving.decision_students.agreement_bound import AgreementTarget
from plugins.serving.decision_students.student_fitting import CoverageAtThreshold, QuestionEvaluation
from plugins.serving.decisions.student_creation import DecisionReport, QuestionReport

PAGE_FILE = "evaluation.html"
TEMPLATES = Path(__file__).parents[1] / "templates"
PLOT_WIDTH, PLOT_HEIGHT = 760.0, 320.0
MARGINS = (10.0, 14.0, 26.0, 46.0)
"""Top, right, bottom, left."""
MOST_RISK = 1.0


class CurvePlot(NamedTuple):
    """Coverage against risk of one question, as SVG coordinates."""

    report: QuestionReport
    risk: str
    band: str
    """From the risk to its bound."""
    oracle: str
    random: str
    target: float
    """The height of the allowed risk."""
    certified: tuple[float, float] | None
    uncalibrated: tuple[float, float] | None
    across: list[Tick]
    up: list[Tick]
    words: str
    width: float = PLOT_WIDTH
    height: float = PLOT_HEIGHT
    left: float = MARGINS[3]


def _build_curve_plot(report: QuestionReport, target: AgreementTarget) -> CurvePlot:
    curve, student = report.student.curve, report.student
    # Bounds at the smallest coverages are near 1 and would flatten the rest.
    highest = min(MOST_RISK, 1.25 * max(curve.random, target.risk, *(point.risk for point in curve.points)))
    plot = create_plot_area((0, 1), (0.0, highest), (PLOT_WIDTH, PLOT_HEIGHT), MARGINS)

    def place(at: CoverageAtThreshold) -> tuple[float, float] | None:
        return (plot.x(at.coverage), plot.y(at.risk)) if at.risk is not None else None

    described = [curve.points[i] for i in (0, len(curve.points) // 2, -1)]
    return CurvePlot(
        report=report,
        risk=plot.points((point.coverage, point.risk) for point in curve.points),
        band=plot.band([(point.coverage, point.risk, min(highest, point.bound)) for point in curve.points]),
        oracle=plot.points((point.coverage, point.oracle) for point in curve.points),
        random=plot.points([(0, curve.random), (1, curve.random)]),
        target=plot.y(target.risk),
        certified=place(student.certified),
        uncalibrated=place(student.uncalibrated),
        across=[Tick(plot.x(part / 4), format_percent(part / 4)) for part in range(5)],
        up=[Tick(plot.y(share), format_percent(share)) for share in list_round_values(0.0, highest)],
        words=", ".join(f"{point.risk:.1%} at {format_percent(point.coverage)}" for point in described),
    )


def write_decision_page(out: Path, report: DecisionReport) -> Path:
    """Raises StoreError if the file system fails."""
    template = create_page_environment(TEMPLATES).get_template("decisions.html")
    plots = [_build_curve_plot(question, report.target) for question in report.questions]
    page = out / PAGE_FILE
    write_text(
        page,
        template.render(
            report=report,
            plots=plots,
            describe=_describe_guarantee,
            summary=_summarize_answers(report),
            count=_format_threshold_texts,
        ),
    )
    return page


def _summarize_answers(report: DecisionReport) -> str:
    """What the student is worth on the evaluation texts: a sentence for each question."""
    sentences = []
    for one in report.questions:
        alone = one.student.certified
        differ = (
            f"; {100 * alone.risk:.1f} % of these answers differ from the teacher's" if alone.risk is not None else ""
        )
        sentences.append(
            f"The student alone answers {one.question.name} for {format_percent(alone.coverage)} of the texts{differ}."
        )
    return " ".join(sentences)


def _describe_guarantee(report: QuestionReport, target: AgreementTarget) -> str:
    """What was certified, in a sentence or two."""
    cases, answered, wrong = report.calibration
    wanted = f"{100 * target.agreement:.3g} % agreement with the teacher at {100 * target.confidence:.3g} % confidence"
    if report.threshold is None:
        cross = ", --calibration cross" if report.method == "held-out" else ""
        return (
            f"No threshold reaches {wanted} on {cases} calibration texts, so the teacher answers all. More labels{cross}, a "
            f"lower --target or labels that agree with each other may help; {target.fewest_cases} answers without any "
            "disagreement are the least that can certify it."
        )
    claim = "Certified" if report.method == "held-out" else "Cross-validated, which is no proof"
    return (
        f"{claim}: {wanted} where the score is at least {report.threshold:.3f}. There, {wrong} of {answered} calibration "
        f"answers disagree; the student answers {format_percent(answered / cases)} of {cases} texts, and the teacher the rest."
    )


def format_decision_report(report: DecisionReport) -> str:
    """The output of `stillhouse decisions`."""
    heads, thresholds, evaluation = report.texts
    lines = [
        f"student of {report.encoder} for {report.source}, teacher {report.teacher or 'unknown'}",
        f"  {heads:,} texts for the heads, {_format_threshold_texts(thresholds)} for the thresholds, {evaluation:,} for the "
        f"evaluation; made in {format_duration(report.seconds)}; a decision takes {report.latency_ms[0]:.1f} ms (99th percentile "
        f"{report.latency_ms[1]:.1f})",
    ]
    for question in report.questions:
        lines += _format_question(question, report.target)
    if report.left_to_teacher:
        lines.append(f"  left to the teacher: {', '.join(report.left_to_teacher)}")
    return "\n".join(lines)


def _format_threshold_texts(thresholds: int) -> str:
    return f"{thresholds:,}" if thresholds else "their out-of-fold predictions"


def _format_question(report: QuestionReport, target: AgreementTarget) -> Iterator[str]:
    yield f"{report.question.name}: {_describe_guarantee(report, target)}"
    if report.noise:
        yield f"  {report.noise.words}"
    rows: list[tuple[str, ...]] = [
        (
            "",
            "agrees",
            "macro-F1",
            "ECE",
            "answers alone",
            "disagree",
            f"score ≥ {target.agreement:g}",
            "disagree",
            "oracle",
        )
    ]
    named = {"student": report.student, "TF-IDF": report.tfidf, "labels of people": report.test}
    rows += [_format_row(name, found) for name, found in named.items() if found]
    yield from format_table(rows)


def _format_row(name: str, found: QuestionEvaluation) -> tuple[str, ...]:
    quality = found.quality
    return (
        name,
        quality.accuracy.format(format_percent) if quality else format_percent(found.agreement),
        quality.macro_f1.format(lambda value: f"{value:.2f}") if quality else "-",
        quality.ece.format(lambda value: f"{value:.3f}") if quality else "-",
        format_percent(found.certified.coverage),
        _format_risk(found.certified),
        format_percent(found.uncalibrated.coverage),
        _format_risk(found.uncalibrated),
        format_percent(found.oracle),
    )


def _format_risk(at: CoverageAtThreshold) -> str:
    return "-" if at.risk is None else f"{100 * at.risk:.1f} %"
