"""The run card that `report` prints, and its parts. Text from teachers is untrusted: it loses its control characters."""

import textwrap
from collections.abc import Iterable, Sequence

from core.config.teachers import find_student_release
from core.plugins import load_hooks
from core.runs.batch_records import read_open_batches
from core.runs.records import (
    CollapseRecord,
    DifficultyRecord,
    JudgeRecord,
    MetricRecord,
    MixRecord,
    RunManifest,
    SamenessRecord,
)
from core.runs.run_dir import RunDir
from core.runs.student_records import EvaluationRecord
from flows.terminal.cost_text import list_estimated
from flows.terminal.panel_text import list_panel_card_lines
from flows.terminal.suggested_commands import suggest_next_command
from flows.terminal.text_format import (
    TERMINAL_WIDTH,
    advise_on_truncation,
    describe_generator,
    format_count,
    format_duration,
    format_money,
    format_number,
    format_one_line,
    format_percent,
    format_token_usage,
    locate_metric,
    replace_unsafe_characters,
)

LABEL_WIDTH = 12
"""Columns before the values of a card row."""
MOST_CARD_REASONS = 12
"""Reasons on the card; the rest are summed. The page lists all."""


def format_run_card(manifest: RunManifest, run: RunDir, named: str | None = None, runs_dir: str | None = None) -> str:
    """The whole card of a run. `named` and `runs_dir` are as in `suggest_next_command`."""
    return "\n".join([format_run_details(manifest, run), suggest_next_command(manifest, run, named, runs_dir)])


def format_run_details(manifest: RunManifest, run: RunDir) -> str:
    """The card without a suggested command."""
    lines = [f"run {manifest.run}  {manifest.state}  {run.path}"]
    batches = [f"{batch.name} at {batch.model}: {batch.describe()}" for batch in read_open_batches(run.batches)]
    errors = [manifest.error] if manifest.error else []
    for label, texts in (("error", errors), ("batch", batches), ("missing", manifest.shortfalls)):
        for text in texts:
            wrapped = textwrap.wrap(replace_unsafe_characters(text), TERMINAL_WIDTH - LABEL_WIDTH)
            lines += format_labelled_lines(label, wrapped)
    steps = wrap_items([f"{name} {left:,}" for name, left in manifest.funnel], " -> ", TERMINAL_WIDTH - 2)
    lines += [f"  {line}" for line in steps]
    if manifest.counts.dropped + manifest.counts.failed:
        ranked = sorted(manifest.reasons.items(), key=lambda item: -item[1])
        items = [f"{format_one_line(name, 40).rstrip(':')} {count:,}" for name, count in ranked[:MOST_CARD_REASONS]]
        if rest := ranked[MOST_CARD_REASONS:]:
            items.append(f"{format_count(len(rest), 'more reason')}: {sum(count for _, count in rest):,}")
        not_kept = wrap_items([format_not_kept_counts(manifest), *items], "   ", TERMINAL_WIDTH - LABEL_WIDTH)
        lines += format_labelled_lines("not kept", not_kept)
    for label, text in _list_measured(manifest):
        lines += format_labelled_lines(label, textwrap.wrap(text, TERMINAL_WIDTH - LABEL_WIDTH))
    thinking = [manifest.thinking.summary] if manifest.thinking else []
    if thinking or manifest.missing_thinking:
        lines += format_labelled_lines("thinking", [*thinking, *manifest.missing_thinking])
    if manifest.critic:
        lines += format_labelled_lines("critic", [manifest.critic.summary])
    if collapse := manifest.collapse:
        lines += format_labelled_lines("verdict", [format_one_line(collapse.headline, TERMINAL_WIDTH - LABEL_WIDTH)])
        if collapse.spread:
            summary = replace_unsafe_characters(collapse.spread.summary)
            lines += format_labelled_lines("spread", textwrap.wrap(summary, TERMINAL_WIDTH - LABEL_WIDTH))
    lines += _format_usage(manifest)
    lines += format_labelled_lines("generator", list_student_generator(manifest))
    return "\n".join([*lines, *_format_artifacts(manifest, run)])


def _list_measured(manifest: RunManifest) -> list[tuple[str, str]]:
    """What judges, the difficulty and plugins say, by label."""
    measured = [("judge", format_judge_record(judge)) for judge in manifest.judges]
    measured += [("pass rate", format_difficulty_record(manifest.difficulty))] if manifest.difficulty else []
    for hooks in load_hooks(manifest.plugins):
        measured += [(label, replace_unsafe_characters(text)) for label, text in hooks.list_summary_lines(manifest)]
    return measured


def list_student_generator(manifest: RunManifest) -> list[str]:
    """The generator, if it is a promoted student."""
    model = manifest.generator
    return [describe_generator(model)] if model and find_student_release(model) else []


def _format_usage(manifest: RunManifest) -> list[str]:
    """What the answers in the samples took, what was paid, and what a preview estimated."""
    rows = [("usage", [*format_token_usage(manifest.usage), format_duration(sum(manifest.seconds.values()))])]
    rows.append(("paid", format_run_costs(manifest)))
    if manifest.estimate:
        rows.append(("estimated", [f"{label} {text}" for label, text in list_estimated(manifest.estimate)]))
    return [
        line
        for label, items in rows
        if items
        for line in format_labelled_lines(label, wrap_items(items, "   ", TERMINAL_WIDTH - LABEL_WIDTH))
    ]


def format_labelled_lines(label: str, values: Sequence[str]) -> list[str]:
    labels = [label, *[""] * (len(values) - 1)]
    return [f"  {name:<{LABEL_WIDTH - 2}}{value}" for name, value in zip(labels, values, strict=False)]


def wrap_items(items: Iterable[str], joint: str, width: int) -> list[str]:
    """Lines of whole items, each line as full as possible."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(joint) + len(item) <= width:
            lines[-1] += joint + item
        else:
            lines.append(joint.lstrip() + item if lines else item)
    return lines


def format_not_kept_counts(manifest: RunManifest) -> str:
    counts = manifest.counts
    parts = [f"{counts.dropped:,} dropped"] * bool(counts.dropped) + [f"{counts.failed:,} failed"] * bool(counts.failed)
    return ", ".join(parts)


def format_headline(collapse: CollapseRecord) -> str:
    """The line that says the verdict wherever it is printed."""
    return format_one_line(collapse.line, TERMINAL_WIDTH)


def _format_interval(metric: MetricRecord) -> str:
    return f" ({' to '.join(map(format_number, metric.interval))})" if metric.interval else ""


def _format_outside_metric(metric: MetricRecord) -> str:
    position = locate_metric(metric)
    return "" if position == "inside" else f", {position}"


def format_judge_record(judge: JudgeRecord) -> str:
    """A judge's accuracy, in a line, with a warning if it is not shown to be better than chance."""
    m = judge.measured
    if m is None:
        return f"{replace_unsafe_characters(judge.teacher)}: its accuracy was not measured"
    parts = [
        f"{replace_unsafe_characters(judge.teacher)}: right on {m.right} of {m.answers} labelled answers, "
        f"{format_percent(m.accuracy)} ({format_percent(m.accuracy_low)} to {format_percent(m.accuracy_high)})",
        f"passes {format_percent(m.sensitivity)} of the good and {format_percent(1 - m.specificity)} of the poor",
    ]
    parts += [f"{format_percent(m.inconsistent)} depend on the order of the choices"] if m.inconsistent else []
    parts += [f"{format_percent(m.undecided)} got no clear verdict"] if m.undecided else []
    if not m.beyond_chance:
        parts.append("NOT SHOWN TO BE BETTER THAN CHANCE")
    return "; ".join(parts)


def format_difficulty_record(record: DifficultyRecord) -> str:
    """The measured pass rates, in a line: samples by pass rate."""
    low, high = record.wanted
    rates = ", ".join(f"{rate:.2g}: {number:,}" for rate, number, _ in record.rows)
    return (
        f"of {replace_unsafe_characters(record.teacher)} in {format_count(record.attempts, 'attempt')}, with verified samples: "
        f"{rates}; wanted {low:g} to {high:g}"
    )


def format_run_costs(manifest: RunManifest) -> list[str]:
    """The calls, tokens and money that the run paid for, its evaluation included, if they differ from those of the answers in its
    samples.
    """
    paid, usage = manifest.paid, manifest.usage
    if not paid.cost and (paid.calls, paid.tokens) == (usage.calls, usage.prompt_tokens + usage.completion_tokens):
        return []
    currency, limit = manifest.currency, "at most " if paid.uncounted else ""
    cost = [f"cost {limit}{format_money(paid.cost, currency)}"] if paid.cost else []
    saved = [f"{format_money(paid.saved, currency)} saved by prompt caches"] if paid.saved > 0 else []
    calls, *tokens = format_token_usage(paid)
    uncounted = [f"{format_count(paid.uncounted, 'call')} without a token count"] if paid.uncounted else []
    return [*cost, calls, *(f"{limit}{text}" for text in tokens), *uncounted, *saved]


def _format_artifacts(manifest: RunManifest, run: RunDir) -> list[str]:
    lines = []
    if run.dataset.exists():
        items = [str(run.dataset)]
        if [form.name for form in manifest.formats] != ["messages"]:
            for form in manifest.formats:
                left_out = f" ({form.left_out:,} left out)" if form.left_out else ""
                items.append(f"{form.name} {form.train + form.validation:,}{left_out}")
        lines += format_labelled_lines("dataset", wrap_items(items, "   ", TERMINAL_WIDTH - LABEL_WIDTH))
    if manifest.mix and manifest.mix.rows > manifest.mix.own:
        lines += format_labelled_lines(
            "rows", textwrap.wrap(format_mixture(manifest.mix), TERMINAL_WIDTH - LABEL_WIDTH)
        )
    if pairs := manifest.pairs:
        head = f"{format_count(pairs.total, 'pair')} of {format_count(pairs.prompts, 'prompt')}"
        kinds = [f"{format_one_line(kind, 40)} {count:,}" for kind, count in pairs.differences.items()]
        lines += format_labelled_lines(
            "pairs", wrap_items([head, *kinds[:MOST_CARD_REASONS]], "   ", TERMINAL_WIDTH - LABEL_WIDTH)
        )
    if run.report_file.exists():
        lines += format_labelled_lines("report", [str(run.report_file)])
    if student := manifest.student:
        losses = f"held-out loss {student.loss_before:.2f} -> {student.loss_after:.2f}"
        lines += format_labelled_lines(
            "student", wrap_items([str(run.student), losses, *student.start_notes], "   ", TERMINAL_WIDTH - LABEL_WIDTH)
        )
        if advice := advise_on_truncation(student.truncation, "student.max_tokens"):
            lines += format_labelled_lines("", textwrap.wrap(advice, TERMINAL_WIDTH - LABEL_WIDTH))
    return [*lines, *(_format_evaluation(manifest.evaluation) if manifest.evaluation else [])]


def _format_evaluation(evaluation: EvaluationRecord) -> list[str]:
    passed = ", ".join(f"{model.role} {model.passed}" for model in evaluation.models)
    lines = format_labelled_lines("passed", [f"{passed} of {evaluation.requests} held-out requests"])
    return [
        *lines,
        *(format_labelled_lines("general", list_panel_card_lines(evaluation.panel)) if evaluation.panel else []),
    ]


def format_mixture(mix: MixRecord) -> str:
    """The sources of a dataset's rows, in a line."""
    parts = [f"{mix.own:,} own", *(f"{rows:,} of {name}" for name, rows in mix.earlier.items())]
    short = f", less than min_real_share = {mix.min_real_share:g}" if mix.real_share < mix.min_real_share else ""
    parts += [f"{mix.real:,} real ({format_percent(mix.real_share)}{short})"] if mix.real else []
    parts += [f"{mix.withheld:,} own left out (held-out requests)"] if mix.withheld else []
    return f"{mix.rows:,}: {', '.join(parts)}"


def format_metrics(collapse: CollapseRecord) -> list[str]:
    """Collapse metrics, one per line with its 95 % interval, each with its meaning; then how alike the texts are."""
    lines = []
    for metric in collapse.metrics:
        real = f"{format_number(metric.low)} to {format_number(metric.high)}{_format_outside_metric(metric)}"
        real = f"real {real}" if collapse.reference else f"limits {real}"
        z = "" if metric.z is None else f"   z {metric.z:+.1f}"
        lines.append(f"{metric.name:<22}{format_number(metric.candidate):>9}{_format_interval(metric)}   {real}{z}")
        lines += textwrap.wrap(
            replace_unsafe_characters(metric.meaning), TERMINAL_WIDTH, initial_indent="    ", subsequent_indent="    "
        )
    return [*lines, *(line for sameness in collapse.sameness for line in _format_sameness(sameness))]


def _format_sameness(sameness: SamenessRecord) -> list[str]:
    """How alike the texts are, in a sentence."""
    bleu = "" if sameness.self_bleu is None else f", self-BLEU {sameness.self_bleu:.2f}"
    words = (
        f"{sameness.of}: {sameness.opening_share:.0%} begin with “{sameness.opening}”, "
        f"{sameness.template_share:.0%} with the pattern “{sameness.template}”{bleu}"
    )
    return textwrap.wrap(replace_unsafe_characters(words), TERMINAL_WIDTH, subsequent_indent="    ")
