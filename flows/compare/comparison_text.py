"""A comparison of two datasets for the terminal and as a page. Reads no dataset.

Texts are untrusted: the terminal gets no control characters, and the page escapes everything and allows no script.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.storage.atomic_files import write_text
from flows.compare.dataset_comparison import (
    ComparedFigure,
    ComparedReason,
    ComparedSide,
    DatasetComparison,
    ExampleKind,
    ExampleText,
    RowExample,
)
from flows.compare.recorded_figures import Figure
from flows.report.filter_report import EXCERPT_WORDS, TextComparison, TextExcerpt, compare_texts, cut_excerpt
from flows.report.page_templates import create_page_environment
from flows.terminal.suggested_commands import build_runs_dir_arguments, format_next_line
from flows.terminal.text_format import (
    TERMINAL_WIDTH,
    format_count,
    format_number,
    format_one_line,
    format_percent,
    format_table,
)

TERMINAL_EXAMPLES = 2
"""Examples of each kind in the terminal; the page has more."""
TERMINAL_REASONS = 8
LONGEST_CELL = 28
"""Characters of a cell of the terminal's table."""
EXAMPLE_LENGTH = 360
"""Characters of a text in the terminal."""
EXAMPLE_INDENT = "      "
KINDS: tuple[ExampleKind, ...] = ("changed", "removed", "added")


def build_comparison_record(comparison: DatasetComparison) -> dict[str, Any]:
    """The JSON form, with what is computed from its fields."""
    record = comparison.model_dump(mode="json")
    record["rows"]["changed"] = comparison.rows.changed
    for figure, written in zip(comparison.figures, record["figures"], strict=True):
        written["difference"] = figure.difference
    return record


def format_figure(figure: Figure | None) -> str:
    return f"{format_value(figure)} {format_interval(figure)}".rstrip()


def format_value(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    if isinstance(figure.value, str):
        return format_one_line(figure.value, LONGEST_CELL)
    return _format_number(figure.value, is_share=figure.is_share)


def format_interval(figure: Figure | None) -> str:
    """The 95 % interval in brackets; empty without one."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    ends = (_format_number(end, is_share=figure.is_share) for end in (figure.low, figure.high))
    return f"({' to '.join(ends)})"


def _format_number(value: float, *, is_share: bool) -> str:
    return format_percent(value) if is_share else format_number(value)


def format_change(count: int) -> str:
    """A difference of counts with its sign."""
    return f"{count:+,}" if count else "0"


def format_difference(figure: ComparedFigure) -> str:
    """B minus A, a share in percentage points; "changed" for texts that differ; empty without both."""
    if figure.difference is None:
        return "differs" if figure.a and figure.b and figure.a.value != figure.b.value else ""
    if figure.a and figure.a.is_share:
        return f"{format_change(round(100 * figure.difference))} points"
    if figure.difference == 0:
        return "0"
    return f"{'+' if figure.difference > 0 else '-'}{format_number(abs(figure.difference))}"


def summarize_changes(comparison: DatasetComparison) -> str:
    """The rows in a sentence."""
    rows = comparison.rows
    if not rows.changed + rows.removed + rows.added:
        return f"Both have the same {format_count(rows.same, 'row')}."
    parts = [f"{rows.same:,} same", f"{rows.changed:,} changed", f"{rows.removed:,} removed", f"{rows.added:,} added"]
    return f"{', '.join(parts)}: from {rows.rows_a:,} to {format_count(rows.rows_b, 'row')}."


def format_comparison(comparison: DatasetComparison, page: Path | None, runs_dir: str) -> str:
    """The output of `diff`. `page` is the page that was written."""
    rows = comparison.rows
    lines = [f"diff  {comparison.a.source} -> {comparison.b.source}"]
    lines += [f"  {mark}         {_describe_side(side)}" for mark, side in (("A", comparison.a), ("B", comparison.b))]
    counts = (f"same {rows.same:,}", f"changed {rows.changed:,}", f"removed {rows.removed:,}", f"added {rows.added:,}")
    lines.append(f"  rows      {'   '.join(counts)}")
    if rows.changed:
        lines.append(
            f"  matched   {rows.changed_by_id:,} changed rows by id, {rows.changed_by_request:,} by the same request"
        )
    lines += _format_figures(comparison.figures)
    lines += _format_reasons(comparison.reasons)
    for kind in KINDS:
        lines += _format_examples(comparison, kind)
    if page:
        return "\n".join([*lines, f"  page      {page}"])
    command = ("diff", comparison.a.source, comparison.b.source, "--out", "diff.html")
    return "\n".join([*lines, format_next_line(*command, *build_runs_dir_arguments(runs_dir))])


def _describe_side(side: ComparedSide) -> str:
    words = f"{format_count(side.rows, 'row')}, {format_number(side.mean_words)} words per answer"
    kind = "" if side.kind == "files" else f"{side.kind} "
    return f"{kind}{format_one_line(side.name, 200)}  {words}"


def _format_figures(figures: Sequence[ComparedFigure]) -> list[str]:
    if not figures:
        return []
    table = [("", "A", "B", "B - A")]
    previous = ""
    for figure in figures:
        group = figure.group if figure.group != previous else ""
        previous = figure.group
        name = f"{group:<11}{format_one_line(figure.name, 40)}"
        table.append((name, format_figure(figure.a), format_figure(figure.b), format_difference(figure)))
    return ["", *format_table(table)]


def _format_reasons(reasons: Sequence[ComparedReason]) -> list[str]:
    if not reasons:
        return []
    table = [("not kept for", "A", "B", "B - A")]
    shown, rest = reasons[:TERMINAL_REASONS], reasons[TERMINAL_REASONS:]
    table += [(format_one_line(r.reason, 60), f"{r.a:,}", f"{r.b:,}", format_change(r.b - r.a)) for r in shown]
    if rest:
        a, b = sum(r.a for r in rest), sum(r.b for r in rest)
        table.append((format_count(len(rest), "more reason"), f"{a:,}", f"{b:,}", format_change(b - a)))
    return ["", *format_table(table)]


def _format_examples(comparison: DatasetComparison, kind: ExampleKind) -> list[str]:
    total = getattr(comparison.rows, kind)
    shown = comparison.list_examples(kind)[:TERMINAL_EXAMPLES]
    if not shown:
        return []
    lines = ["", f"  {kind}   {len(shown)} of {total:,}"]
    for example in shown:
        lines += _format_example(example)
    return lines


def _format_example(example: RowExample) -> list[str]:
    texts = [text for text in (example.a, example.b) if text]
    places = " -> ".join(_format_place(text) for text in texts)
    lines = [f"    {format_one_line(places, TERMINAL_WIDTH - 4)}"]
    request = texts[0].request
    if request:
        lines += _wrap_marked("?", request)
    if example.a and example.b:
        if example.a.request != example.b.request:
            lines += _wrap_both(compare_texts(example.a.request, example.b.request))
        if example.a.answer != example.b.answer:
            lines += _wrap_both(compare_texts(example.a.answer, example.b.answer))
        return lines
    return lines + _wrap_marked("-" if example.a else "+", texts[0].answer)


def _format_place(text: ExampleText) -> str:
    return f"{text.place} {text.id}" if text.id else text.place


def _wrap_both(compared: TextComparison) -> list[str]:
    """Both texts, words that only one has between marks, as `git diff --word-diff` prints them."""
    removed = _mark_parts(compared.dropped, "[-", "-]")
    added = _mark_parts(compared.kept, "{+", "+}")
    return [*_wrap_marked("-", removed), *_wrap_marked("+", added)]


def _mark_parts(side: TextExcerpt, opening: str, closing: str) -> str:
    text = "".join(f"{opening}{part.text}{closing}" if part.own else part.text for part in side.parts)
    return f"{'… ' if side.before else ''}{text}{' …' if side.after else ''}"


def _wrap_marked(mark: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(format_one_line(text, EXAMPLE_LENGTH), TERMINAL_WIDTH - len(EXAMPLE_INDENT) - 2)
    return [f"{EXAMPLE_INDENT}{mark if number == 0 else ' '} {line}" for number, line in enumerate(wrapped or [""])]


class ComparedExampleView(NamedTuple):
    """An example with the excerpts of its texts."""

    example: RowExample
    request: TextExcerpt | None
    """What was asked, if both have the same request."""
    requests: TextComparison | None
    answers: TextComparison | None
    answer: TextExcerpt | None
    """Of a row that only one dataset has."""


def build_compared_example(example: RowExample) -> ComparedExampleView:
    a, b = example.a, example.b
    if a and b:
        same = a.request == b.request
        return ComparedExampleView(
            example,
            cut_excerpt(a.request) if same and a.request else None,
            None if same else compare_texts(a.request, b.request),
            compare_texts(a.answer, b.answer) if a.answer != b.answer else None,
            None,
        )
    only = a or b
    assert only
    return ComparedExampleView(
        example, cut_excerpt(only.request) if only.request else None, None, None, cut_excerpt(only.answer)
    )


def write_comparison_page(path: Path, comparison: DatasetComparison) -> None:
    """Write a page that loads nothing from the network."""
    groups: dict[str, list[ComparedFigure]] = {}
    for figure in comparison.figures:
        groups.setdefault(figure.group, []).append(figure)
    page = create_page_environment().get_template("comparison.html")
    html = page.render(
        c=comparison,
        conclusion=summarize_changes(comparison),
        groups=groups,
        sections=[(kind, list(map(build_compared_example, comparison.list_examples(kind)))) for kind in KINDS],
        format_value=format_value,
        format_interval=format_interval,
        format_change=format_change,
        format_difference=format_difference,
        most_words=EXCERPT_WORDS,
    )
    write_text(path, html)
