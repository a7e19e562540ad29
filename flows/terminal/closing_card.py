"""The card at the end of `run`: at most 17 lines for a finished run. `stillhouse show` prints everything else.

Text from teachers is untrusted: it loses its control characters.
"""

import textwrap
from collections.abc import Sequence

from core.plugins import find_part
from core.runs.records import CollapseVerdict, RunManifest, RunState
from core.runs.releases import Release
from core.runs.run_dir import RunDir
from core.runs.student_records import EvaluationRecord, PairedComparison
from core.sample import Sample
from core.shared_options import EMBEDDER_FILE
from flows.release.promotion_decision import format_promotion
from flows.terminal.cost_text import list_estimated
from flows.terminal.panel_text import list_panel_card_lines
from flows.terminal.run_summary import LABEL_WIDTH, format_labelled_lines, list_student_generator
from flows.terminal.suggested_commands import build_runs_dir_arguments, format_command, suggest_next_command
from flows.terminal.text_format import (
    TERMINAL_WIDTH,
    format_count,
    format_money,
    format_one_line,
    format_percent,
    replace_unsafe_characters,
)

CARD_ROWS = 2
"""Rows of the dataset on the card."""
CARD_CHOICE = 50
"""Kept samples among which the card takes the shortest, which fit best on a line."""
VALUE_WIDTH = TERMINAL_WIDTH - LABEL_WIDTH
EVALUATED_ROLES = ("teacher", "start", "student")


def format_closing_card(
    manifest: RunManifest,
    run: RunDir,
    samples: Sequence[Sample],
    named: str,
    runs_dir: str,
    released: Release | None = None,
) -> str:
    """The card. `samples` are the first `CARD_CHOICE` kept ones; `named` and `runs_dir` are as in `suggest_next_command`."""
    more = format_command("show", named, *build_runs_dir_arguments(runs_dir))
    shortest = sorted(samples, key=lambda sample: len(_find_request([sample])) + len(sample.answer))
    rows = [
        ("missing", [line for text in manifest.shortfalls for line in _wrap_text(text)]),
        *(("asked", _format_row(sample)) for sample in shortest[:CARD_ROWS]),
        ("funnel", [format_one_line(" -> ".join(f"{name} {left:,}" for name, left in manifest.funnel), VALUE_WIDTH)]),
        ("generator", list_student_generator(manifest)),
        *_list_student_rows(manifest),
        ("cost", [_format_cost(manifest)] if manifest.paid.cost else []),
        ("thinking", [*([manifest.thinking.summary] if manifest.thinking else []), *manifest.missing_thinking]),
        ("critic", [manifest.critic.summary] if manifest.critic and manifest.critic.is_silent else []),
        ("verdict", [format_one_line(manifest.collapse.headline, VALUE_WIDTH)] if manifest.collapse else []),
        ("dataset", [str(run.dataset)] if run.dataset.exists() else []),
        ("page", [str(run.report_file)] if run.report_file.exists() else []),
        ("released", [_describe_release(released)] if released else []),
        ("", [line for text in format_promotion(released) for line in _wrap_text(text)] if released else []),
        ("more", [more] if manifest.counts.candidates and not released else []),
    ]
    lines = [f"run {manifest.run}  {manifest.state}  {run.path}"]
    for label, values in rows:
        lines += format_labelled_lines(label, values) if values else []
    return "\n".join([*lines, _suggest_next(manifest, run, named, runs_dir)])


def _format_cost(manifest: RunManifest) -> str:
    """What was paid, and what a preview estimated."""
    limit = "at most " if manifest.paid.uncounted else ""
    cost = f"{limit}{format_money(manifest.paid.cost, manifest.currency)}"
    estimated = manifest.estimate and dict(list_estimated(manifest.estimate)).get("cost")
    return f"{cost}; estimated {estimated}" if estimated else cost


def _describe_release(release: Release) -> str:
    marked = ", marked inconclusive" if release.manifest.verdict is CollapseVerdict.inconclusive else ""
    return f"{release.path}   generation {release.generation}{marked}"


def _wrap_text(text: str) -> list[str]:
    return textwrap.wrap(replace_unsafe_characters(text), VALUE_WIDTH)


def _find_request(samples: Sequence[Sample]) -> str:
    """The user's first message of the first sample."""
    asked = (message.content for sample in samples for message in sample.candidate.messages if message.role == "user")
    return next(asked, "")


def _format_row(sample: Sample) -> list[str]:
    """Request and answer, shortened to the width."""
    answer = format_one_line(sample.answer, VALUE_WIDTH - 3)
    return [format_one_line(_find_request([sample]), VALUE_WIDTH), f"-> {answer}"]


def _list_student_rows(manifest: RunManifest) -> list[tuple[str, list[str]]]:
    if manifest.evaluation:
        return format_evaluation_rows(manifest.evaluation)
    if not manifest.student:
        return []
    student = manifest.student
    return [("student", [f"held-out loss {student.loss_before:.2f} -> {student.loss_after:.2f}"])]


def format_evaluation_rows(evaluation: EvaluationRecord) -> list[tuple[str, list[str]]]:
    """A label and a line for what was asked, and for each model; then the general panel."""
    differences = {comparison.role: comparison for comparison in evaluation.comparisons}
    head = f"{format_count(evaluation.requests, 'request')} that no sample used; answers that pass every check (95 % interval):"
    rows = [("held out", [head])]
    for role in EVALUATED_ROLES:
        if (model := evaluation.find_model(role)) is None:
            continue
        rate = model.pass_rate
        line = f"{model.passed:>4} of {evaluation.requests}  {format_percent(rate.value):>5} "
        line += f"({format_percent(rate.low)} to {format_percent(rate.high)})"
        if role in differences:
            line = f"{line:<34}student {format_gain(differences[role])}"
        rows.append((role, [line]))
    if evaluation.panel:
        rows.append(("general", list_panel_card_lines(evaluation.panel)))
    return rows


def format_gain(comparison: PairedComparison) -> str:
    """The student minus the other model, in percentage points."""
    found = comparison.difference
    low, high = f"{100 * found.low:+.0f}", f"{100 * found.high:+.0f}"
    return f"{100 * found.value:+.0f} points ({low} to {high}): {comparison.conclusion}"


def _suggest_next(manifest: RunManifest, run: RunDir, named: str, runs_dir: str) -> str:
    """Chat with the student of a finished run, or evaluate one that sees; otherwise as `suggest_next_command`."""
    if manifest.state is RunState.done and manifest.student:
        if (run.student / EMBEDDER_FILE).is_file():
            return f"next: {format_command('evaluate', str(run.path))}"
        if find_part("command", "chat"):
            return f"next: {format_command('chat', named, *build_runs_dir_arguments(runs_dir))}"
    return suggest_next_command(manifest, run, named, runs_dir)
