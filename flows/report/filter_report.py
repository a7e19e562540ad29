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
from core.runs.records import ComparedSimilarities, SampleCounts
from core.sample import FrozenModel, RejectionReason
from core.storage.atomic_files import write_json, write_text
from filters.text_normalization import SPACELESS
from flows.clean.filter_engine import name_filter_step
from flows.report.pages import HistogramPlot, build_histogram_plots, create_page_environment
from flows.terminal.suggested_commands import format_next_line
from flows.terminal.text_format import TERMINAL_WIDTH, create_environment, replace_unsafe_characters, say

EXCERPT_WORDS = 150
"""Words of one text in the page. The files have the whole text."""
WORDS_BEFORE_DIFFERENCE = 30
"""Words shown before the first difference of two long texts."""
COMPARED_WORDS = 4 * EXCERPT_WORDS
"""Words of each text that are compared: enough that an insertion in one text does not make the end of the other differ."""
LONGEST_WORD = 120
"""Maximum characters of a word, and of the space after it."""
WORD_PATTERN = re.compile(rf"[{SPACELESS}]\s*|[^\s{SPACELESS}]+\s*")


def _replace_unwritable(text: str) -> str:
    """`text` without lone surrogates, which no file can store."""
    return text.encode("utf-8", "replace").decode("utf-8")


WritableText = Annotated[str, AfterValidator(_replace_unwritable)]
"""Text as read, without lone surrogates, which no file can store."""


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

    @property
    def summary(self) -> str:
        return f"{self.filter} {self.dropped:,}"


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
    counts: SampleCounts
    """Of rows; unreadable ones failed, which are stored separately."""
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
        conclusion=say("filter_conclusion", report),
        sections=_build_filter_sections(report),
        most_words=EXCERPT_WORDS,
    )
    write_text(out / "report.html", html)


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


def _cut_excerpt(text: str) -> TextExcerpt:
    """The beginning of `text`."""
    words = WORD_PATTERN.findall(text.strip())
    return _build_side(words, 0, set(range(EXCERPT_WORDS)))


def _compare_texts(dropped: str, kept: str) -> TextComparison:
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


def _build_filter_sections(report: FilterReport) -> list[FilterSection]:
    """The sections of filter types with examples or plots, in the order of the filters."""
    sections = []
    for name in dict.fromkeys(step.filter for step in report.steps):
        examples = []
        for example in report.examples:
            if example.filter == name:
                both = _compare_texts(example.text, example.original) if example.original is not None else None
                examples.append(ExampleView(example, _cut_excerpt(example.text), both))
        own = {name_filter_step(number, name) for number, step in enumerate(report.steps, 1) if step.filter == name}
        plots = build_histogram_plots({key: values for key, values in report.histograms.items() if key in own})
        if examples or plots:
            steps = [step for step in report.steps if step.filter == name]
            sections.append(FilterSection(name, describe_filter(name), steps, examples, plots))
    return sections


def format_filter_card(
    report: FilterReport, reference: str | None = None, columns: str | None = None, *, whole: bool = True
) -> str:
    """The output of `stillhouse filter`: counts, the rows that each filter dropped, and the paths of the files. Only the counts,
    if not `whole`.

    `reference` is real text of the same kind, if known: the next command then compares with it. `columns` are those that the user
    named; kept rows have them too.
    """
    text = create_environment().get_template("filter_card.txt").render(r=report, out=Path(report.out), whole=whole)
    lines = [line for line in text.splitlines() if line]
    if not whole:
        return "\n".join(lines)
    if answers := [step.filter for step in report.steps if step.dropped and step.options.get("of") == "answer"]:
        lines += textwrap.wrap(
            f'hint: {", ".join(answers)} with of = "answer" compared answers alone, so rows with different questions and the '
            'same answer were dropped; of = "conversation" compares questions too',
            TERMINAL_WIDTH,
        )
    if report.counts.kept:
        given = {"--reference": reference, "--columns": columns}
        options = [word for option, value in given.items() if value for word in (option, value)]
        lines.append(format_next_line("assess", report.kept, *options))
    return replace_unsafe_characters("\n".join(lines))
