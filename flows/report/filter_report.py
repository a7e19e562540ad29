"""The page of `stillhouse filter`, the same numbers for machines, and the lines for the terminal.

Knows neither how rows are read nor how filters work. The texts are untrusted user data: the page escapes them and allows no
script.
"""

import re
import textwrap
from difflib import SequenceMatcher
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from core.config.filters import describe_filter
from core.runs.records import ComparedSimilarities
from core.sample import FrozenModel, RejectionReason
from core.storage.atomic_files import write_json, write_text
from filters.text_normalization import SPACELESS
from flows.data.similarity_histogram import name_filter_step
from flows.report.page_templates import create_page_environment
from flows.report.plots import HistogramPlot, build_histogram_plots
from flows.terminal.run_summary import LABEL_WIDTH, format_labelled_lines, wrap_items
from flows.terminal.suggested_commands import format_next_line
from flows.terminal.text_format import (
    TERMINAL_WIDTH,
    format_count,
    format_duration,
    format_percent,
    replace_unsafe_characters,
)

EXCERPT_WORDS = 150
"""Words of one text in the page. The files have the whole text."""
WORDS_BEFORE_DIFFERENCE = 30
"""Words shown before the first difference of two long texts."""
COMPARED_WORDS = 4 * EXCERPT_WORDS
"""Words of each text that are compared: enough that an insertion in one text does not make the end of the other differ."""
LONGEST_WORD = 120
"""Maximum characters of a word, and of the space after it."""
WORD_PATTERN = re.compile(rf"[{SPACELESS}]\s*|[^\s{SPACELESS}]+\s*")
DROP_REASON_PHRASES = {
    RejectionReason.length: "for their length",
    RejectionReason.refusal: "as refusals",
    RejectionReason.boilerplate: "for boilerplate",
    RejectionReason.repetition: "for repeating themselves",
    RejectionReason.exact_duplicate: "as exact duplicates",
    RejectionReason.near_duplicate: "as near-duplicates",
    RejectionReason.quality: "for their quality",
    RejectionReason.language: "for their language",
    RejectionReason.contamination: "for text of evaluation sets",
    RejectionReason.personal_data: "for personal data",
    RejectionReason.uncovered: "for lacking the feature of their seed",
    RejectionReason.review: "by people",
}


def _replace_unwritable(text: str) -> str:
    """`text` without lone surrogates, which no file can store."""
    return text.encode("utf-8", "replace").decode("utf-8")


WritableText = Annotated[str, AfterValidator(_replace_unwritable)]
"""Text as read, without lone surrogates, which no file can store."""


class RowCounts(FrozenModel):
    """Row counts, with the names of a run's counts."""

    candidates: int
    """All rows of the input: kept, dropped and failed."""
    kept: int
    dropped: int
    failed: int
    """Unreadable rows, which are stored separately."""

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if self.candidates != self.kept + self.dropped + self.failed:
            raise ValueError(f"kept, dropped and failed do not add up to the candidates: {self!r}")
        return self


class FilterStep(FrozenModel):
    """The result of one filter."""

    filter: str
    """Its `type` in the recipe."""
    options: dict[str, Any]
    """Its settings, without the type."""
    rows_in: int
    dropped: int
    unjudged: int = 0
    """Rows that do not look like a language that the filter knows; it lets them pass."""
    compared: str | None = None
    """The part of a row that is compared with other rows, for filters that compare rows."""


class ReviewedRows(FrozenModel):
    """What people decided about the rows."""

    kept: int
    dropped: int
    corrected: int
    absent: int
    """Decisions about conversations that the input does not have."""

    @property
    def sentence(self) -> str:
        """Without a full stop."""
        absent = f"; {self.absent:,} reviewed ones are not in the input" if self.absent else ""
        return f"{self.kept:,} kept, {self.dropped:,} dropped, {self.corrected:,} corrected by people{absent}"


class DroppedExample(FrozenModel):
    """One dropped row."""

    filter: str
    reason: RejectionReason
    detail: WritableText
    """The rule, the score and the limit, as text."""
    score: float | None = None
    row: str
    """The row's location: its line, or its file and line."""
    id: WritableText
    text: WritableText
    duplicate_of: WritableText | None = None
    """The id of the row that it repeats."""
    original: WritableText | None = None
    """The text of that row. None if it is in an index of earlier releases."""


class UnreadableRow(FrozenModel):
    """A row that could not be read."""

    file: WritableText
    line: int
    """From 1."""
    error: WritableText


class FilterReport(FrozenModel):
    """The result of `stillhouse filter`. Raises ValueError if counts do not add up, or a histogram belongs to no step."""

    source: WritableText
    out: WritableText
    kept: WritableText
    """The file of kept rows. In the library, it and `out` are empty where nothing stays on disk."""
    state: Literal["done"] = "done"
    counts: RowCounts
    steps: tuple[FilterStep, ...]
    reasons: dict[RejectionReason, int]
    masked: int = 0
    """Kept rows in which something was masked."""
    reviews: ReviewedRows | None = None
    """None if no file has reviews."""
    contamination: dict[str, dict[str, int]] = Field(default_factory=dict)
    """By evaluation set: the fields of `filters.rules.contamination.EvaluationSetReport`."""
    histograms: dict[str, ComparedSimilarities] = Field(default_factory=dict)
    """By `name_filter_step`."""
    examples: tuple[DroppedExample, ...] = ()
    asides: tuple[UnreadableRow, ...] = ()
    """The first ones."""
    seconds: float
    rows_per_second: float
    workers: int = 1

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        dropped = self.counts.dropped
        for name, total in (
            ("steps", sum(step.dropped for step in self.steps)),
            ("reasons", sum(self.reasons.values())),
        ):
            if total != dropped:
                raise ValueError(f"{name}: they dropped {total} rows, but counts.dropped is {dropped}")
        names = [name_filter_step(number, step.filter) for number, step in enumerate(self.steps, 1)]
        if unknown := self.histograms.keys() - set(names):
            raise ValueError(f"histograms: {', '.join(unknown)}: no such step; steps are {', '.join(names)}")
        return self


def write_filter_report(out: Path, report: FilterReport) -> None:
    """Write `report.html`, which needs no network, and `report.json`, the fields of `report`."""
    write_json(out / "report.json", report.model_dump(mode="json"))
    page = create_page_environment().get_template("filter_report.html")
    html = page.render(
        r=report,
        name=Path(report.source).name or report.source,
        conclusion=summarize_filter_report(report),
        reasons=rank_reasons(report),
        sections=build_filter_sections(report),
        most_words=EXCERPT_WORDS,
    )
    write_text(out / "report.html", html)


def summarize_filter_report(report: FilterReport) -> str:
    """A sentence with the kept rows, and the dropped rows by reason."""
    counts = report.counts
    if not counts.candidates:
        return "There was no row to filter."
    if counts.kept == counts.candidates:
        return (
            f"All {format_count(counts.candidates, 'row')} kept." if counts.candidates > 1 else "The only row was kept."
        )
    parts = [
        f"{counts.kept:,} of {format_count(counts.candidates, 'row')} kept ({format_percent(counts.kept / counts.candidates)})"
    ]
    if counts.dropped:
        ranked = rank_reasons(report)
        shown = ranked if len(ranked) <= 3 else ranked[:2]
        items = [f"{count:,} {DROP_REASON_PHRASES.get(reason, f'for {reason}')}" for reason, count in shown]
        if rest := ranked[len(shown) :]:
            items.append(f"{sum(count for _, count in rest):,} for other reasons")
        first, _, words = items[0].partition(" ")
        items[0] = f"{first} dropped {words}"
        parts.append(" and ".join(filter(None, (", ".join(items[:-1]), items[-1]))))
    if counts.failed:
        parts.append(f"{counts.failed:,} could not be read")
    return "; ".join(parts) + "."


def rank_reasons(report: FilterReport) -> list[tuple[RejectionReason, int]]:
    """Most frequent first."""
    return sorted(((reason, count) for reason, count in report.reasons.items() if count), key=lambda item: -item[1])


class TextPart(NamedTuple):
    """Consecutive words of a text that the other text has, or lacks."""

    text: str
    own: bool


class TextExcerpt(NamedTuple):
    """The shown part of a text, with the number of words left out before and after it."""

    parts: list[TextPart]
    before: int = 0
    after: int = 0


class TextComparison(NamedTuple):
    """Two texts side by side. Words that only one of them has are marked."""

    dropped: TextExcerpt
    kept: TextExcerpt

    @property
    def same(self) -> bool:
        """Whether both have the same words, ignoring spaces."""
        return not any(part.own for side in self for part in side.parts)


def cut_excerpt(text: str) -> TextExcerpt:
    """The beginning of `text`."""
    words = WORD_PATTERN.findall(text.strip())
    return _build_side(words, 0, set(range(EXCERPT_WORDS)))


def compare_texts(dropped: str, kept: str) -> TextComparison:
    """Both texts, starting a few words before their first difference."""
    sides = [WORD_PATTERN.findall(text.strip()) for text in (dropped, kept)]
    left, right = sides
    longest = max(len(left), len(right))
    same = sum(1 for _ in takewhile(lambda pair: pair[0].strip() == pair[1].strip(), zip(left, right, strict=False)))
    # The first difference is visible, and as much as possible after it.
    start = 0 if same == longest else max(0, min(same - WORDS_BEFORE_DIFFERENCE, longest - EXCERPT_WORDS))

    windows = [words[start : start + COMPARED_WORDS] for words in sides]
    keys = [[word.strip() for word in window] for window in windows]
    blocks = SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks()
    common = [{i for block in blocks for i in range(block[side], block[side] + block.size)} for side in (0, 1)]
    return TextComparison(*(_build_side(words, start, shared) for words, shared in zip(sides, common, strict=True)))


def _build_side(words: list[str], start: int, common: set[int]) -> TextExcerpt:
    """`common` are indexes of the words from `start` on that the other text has too."""
    shown = words[start : start + EXCERPT_WORDS]
    borders = [i for i in range(1, len(shown)) if (i in common) != (i - 1 in common)]
    parts = []
    for first, last in pairwise([0, *borders, len(shown)]) if shown else ():
        text = "".join(map(_shorten_word, shown[first:last]))
        bare = text.rstrip()
        # The space after the words belongs to neither text.
        parts += [TextPart(bare, own=first not in common), TextPart(text[len(bare) :], own=False)]
    return TextExcerpt(parts, min(start, len(words)), max(0, len(words) - start - EXCERPT_WORDS))


def _shorten_word(word: str) -> str:
    """`word` and the space after it, each cut to `LONGEST_WORD` characters."""
    bare = word.rstrip()
    space = word[len(bare) :][:LONGEST_WORD]
    left_out = len(bare) - LONGEST_WORD
    return bare + space if left_out <= 0 else f"{bare[:LONGEST_WORD]}… ({left_out:,} characters more){space}"


class ExampleView(NamedTuple):
    """An example with the excerpts of its texts."""

    example: DroppedExample
    text: TextExcerpt
    comparison: TextComparison | None


class FilterSection(NamedTuple):
    """The page's section about one type of filter."""

    filter: str
    about: str
    steps: list[FilterStep]
    examples: list[ExampleView]
    plots: list[HistogramPlot]

    @property
    def dropped(self) -> int:
        return sum(step.dropped for step in self.steps)

    @property
    def differ(self) -> bool:
        """Whether an example shows two texts side by side."""
        return any(shown.comparison and not shown.comparison.same for shown in self.examples)


def build_filter_sections(report: FilterReport) -> list[FilterSection]:
    """The sections of filter types with examples or plots, in the order of the filters."""
    sections = []
    for name in dict.fromkeys(step.filter for step in report.steps):
        examples = []
        for example in report.examples:
            if example.filter == name:
                both = compare_texts(example.text, example.original) if example.original is not None else None
                examples.append(ExampleView(example, cut_excerpt(example.text), both))
        own = {name_filter_step(number, name) for number, step in enumerate(report.steps, 1) if step.filter == name}
        plots = build_histogram_plots({key: values for key, values in report.histograms.items() if key in own})
        if examples or plots:
            steps = [step for step in report.steps if step.filter == name]
            sections.append(FilterSection(name, describe_filter(name), steps, examples, plots))
    return sections


def format_filter_card(report: FilterReport, reference: str | None = None, columns: str | None = None) -> str:
    """The output of `stillhouse filter`: counts, the rows that each filter dropped, and the paths of the files.

    `reference` is real text of the same kind, if known: the next command then compares with it. `columns` are those that the user
    named; kept rows have them too.
    """
    counts, out = report.counts, Path(report.out)
    lines = format_filter_counts(report)
    lines += format_labelled_lines("kept", [report.kept])
    lines += format_labelled_lines("dropped", [str(out / "dropped.parquet")])
    if counts.failed:
        errors = [f"{aside.file}:{aside.line}: {aside.error}" for aside in report.asides[:1]]
        first = [line for error in errors for line in textwrap.wrap(error, TERMINAL_WIDTH - LABEL_WIDTH)]
        unreadable = f"{format_count(counts.failed, 'row')} could not be read" + "; the first:" * bool(first)
        lines += format_labelled_lines("aside", [str(out / "aside.jsonl"), unreadable, *first])
    lines += format_labelled_lines("report", [str(out / "report.html")])
    if answers := [step.filter for step in report.steps if step.dropped and step.options.get("of") == "answer"]:
        lines += textwrap.wrap(
            f'hint: {", ".join(answers)} with of = "answer" compared answers alone, so rows with different questions and the '
            'same answer were dropped; of = "conversation" compares questions too',
            TERMINAL_WIDTH,
        )
    if counts.kept:
        given = {"--reference": reference, "--columns": columns}
        options = [word for option, value in given.items() if value for word in (option, value)]
        lines.append(format_next_line("assess", report.kept, *options))
    return replace_unsafe_characters("\n".join(lines))


def format_filter_counts(report: FilterReport) -> list[str]:
    """The rows that each filter dropped, what was compared, and the time."""
    counts = report.counts
    state = report.state + f" with {format_count(counts.failed, 'row')} set aside" * bool(counts.failed)
    lines = [f"filter {report.source}  {state}" + f"  {report.out}" * bool(report.out)]
    ends = [f"kept {counts.kept:,}", f"dropped {counts.dropped:,}"] + [f"aside {counts.failed:,}"] * bool(counts.failed)
    lines.append(f"  rows {counts.candidates:,} -> {', '.join(ends)}")
    drops = [f"{step.filter} {step.dropped:,}" for step in report.steps]
    lines += format_labelled_lines("took", wrap_items(drops, "   ", TERMINAL_WIDTH - LABEL_WIDTH))
    filters_by_part: dict[str, list[str]] = {}
    for step in report.steps:
        if step.compared:
            filters_by_part.setdefault(step.compared, []).append(step.filter)
    compared = [f"{', '.join(dict.fromkeys(names))}: {part}" for part, names in filters_by_part.items()]
    lines += format_labelled_lines("compared", compared)
    unjudged = [
        f"{step.filter} knows English only: {format_count(step.unjudged, 'row')} without frequent English words passed unchecked"
        for step in report.steps
        if step.unjudged
    ]
    lines += format_labelled_lines("unjudged", unjudged)
    if report.masked:
        lines += format_labelled_lines("masked", [f"something in {format_count(report.masked, 'kept row')}"])
    if report.reviews:
        lines += format_labelled_lines("reviewed", [report.reviews.sentence])
    time = [
        format_duration(report.seconds),
        f"{report.rows_per_second:,.0f} rows/s",
        format_count(report.workers, "worker"),
    ]
    return lines + format_labelled_lines("time", ["   ".join(time)])
