"""The page of `stillhouse filter`, the same numbers for machines, and the lines for the terminal.

Knows neither how rows are read nor how filters judge them. The texts are somebody's data and untrusted: in the page they
are escaped, and no script may run.
"""

import re
import shlex
import textwrap
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from core.run import Similarities
from core.sample import Frozen, Reason
from core.store import write_json, write_text
from flows.card import LABEL, WIDTH, filled, labelled
from flows.pages import page_environment
from flows.report import FILTER_WORDS
from flows.similarity import PLOT, Plot, plots_of, step_name
from flows.words import duration, percent, plain, plural

SHOWN = 150
"""Words of one text in the page; the files have all of it."""
BEFORE = 30
"""Words shown before the first difference of two long texts."""
COMPARED = 4 * SHOWN
"""Words of each that are compared, so that what one text has more of does not make the end of the other look different."""
LONGEST_WORD = 120
"""Characters of a word that are shown, and of the space after it."""
SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
"""Thai, Lao, Burmese, Khmer, Chinese and Japanese: written without spaces, so each character counts as a word."""
WORD = re.compile(rf"[{SPACELESS}]\s*|[^\s{SPACELESS}]+\s*")
DROPPED_FOR = {
    Reason.length: "for their length",
    Reason.refusal: "as refusals",
    Reason.boilerplate: "for boilerplate",
    Reason.repetition: "for repeating themselves",
    Reason.exact_duplicate: "as exact duplicates",
    Reason.near_duplicate: "as near-duplicates",
    Reason.quality: "for their quality",
    Reason.language: "for their language",
    Reason.contamination: "for text of evaluation sets",
    Reason.personal_data: "for personal data",
}


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


Text = Annotated[str, AfterValidator(_writable)]
"""Text as it was read, but for halves of surrogate pairs, which no file can hold."""


class RowCounts(Frozen):
    """Named as a run's counts."""

    candidates: int
    """All rows that were there: kept, dropped and failed."""
    kept: int
    dropped: int
    failed: int
    """Those that could not be read, and are kept aside."""

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if self.candidates != self.kept + self.dropped + self.failed:
            raise ValueError(f"kept, dropped and failed do not add up to the candidates: {self!r}")
        return self


class Step(Frozen):
    """One filter at work."""

    filter: str
    """Its `type` in the recipe."""
    options: dict[str, Any]
    """Its settings, without the type."""
    rows_in: int
    dropped: int


class Example(Frozen):
    """One dropped row."""

    filter: str
    reason: Reason
    detail: Text
    """The rule, the score and the limit, in words."""
    score: float | None = None
    row: str
    """Where it lies: its line, or its file and line."""
    id: Text
    text: Text
    duplicate_of: Text | None = None
    """The id of the row that it repeats."""
    original: Text | None = None
    """The text of that row; none where it lies in an index of earlier releases."""


class Aside(Frozen):
    """A row that could not be read."""

    file: Text
    line: int
    """From 1."""
    error: Text


class FilterReport(Frozen):
    """What `stillhouse filter` did. Raises ValueError where counts do not add up, or a histogram is of no step."""

    source: Text
    out: Text
    kept: Text
    """The file of kept rows."""
    state: Literal["done"] = "done"
    counts: RowCounts
    steps: tuple[Step, ...]
    reasons: dict[Reason, int]
    masked: int = 0
    """Kept rows in which something was masked."""
    contamination: dict[str, dict[str, int]] = Field(default_factory=dict)
    """By evaluation set: the fields of `filters.contamination.SetReport`."""
    histograms: dict[str, Similarities] = Field(default_factory=dict)
    """By `step_name`."""
    examples: tuple[Example, ...] = ()
    asides: tuple[Aside, ...] = ()
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
                raise ValueError(f"{name}: they dropped {total} rows, counts say {dropped}")
        names = [step_name(place, step.filter) for place, step in enumerate(self.steps, 1)]
        if unknown := self.histograms.keys() - set(names):
            raise ValueError(f"histograms: {', '.join(unknown)}: no such step; there are {', '.join(names)}")
        return self


def write_filter_report(out: Path, report: FilterReport) -> None:
    """Write `report.html`, which needs no network, and `report.json`, which is `report`."""
    write_json(out / "report.json", report.model_dump(mode="json"))
    write_text(out / "report.html", _page(report))


def conclusion(report: FilterReport) -> str:
    """The run in a sentence: how much was kept, and where the rest went."""
    counts = report.counts
    if not counts.candidates:
        return "There was no row to filter."
    if counts.kept == counts.candidates:
        return f"All {plural(counts.candidates, 'row')} kept." if counts.candidates > 1 else "The only row was kept."
    parts = [f"{counts.kept:,} of {plural(counts.candidates, 'row')} kept ({percent(counts.kept / counts.candidates)})"]
    if counts.dropped:
        parts.append(_dropped_words(report))
    if counts.failed:
        parts.append(f"{counts.failed:,} could not be read")
    return "; ".join(parts) + "."


def _dropped_words(report: FilterReport, most: int = 3) -> str:
    ranked = ranked_reasons(report)
    shown = ranked if len(ranked) <= most else ranked[: most - 1]
    items = [f"{count:,} {DROPPED_FOR.get(reason, f'for {reason}')}" for reason, count in shown]
    if rest := ranked[len(shown) :]:
        items.append(f"{sum(count for _, count in rest):,} for other reasons")
    first, _, words = items[0].partition(" ")
    items[0] = f"{first} dropped {words}"
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def ranked_reasons(report: FilterReport) -> list[tuple[Reason, int]]:
    """Most frequent first."""
    return sorted(((reason, count) for reason, count in report.reasons.items() if count), key=lambda item: -item[1])


class Part(NamedTuple):
    """A run of words of one text, which the other has too or has not."""

    text: str
    own: bool


class Excerpt(NamedTuple):
    """What is shown of a text, with how many words are left out before and after it."""

    parts: list[Part]
    before: int = 0
    after: int = 0


class Comparison(NamedTuple):
    """Two texts beside each other, what only one of them has marked."""

    dropped: Excerpt
    kept: Excerpt

    @property
    def same(self) -> bool:
        """Whether they have the same words, spacing aside."""
        return not any(part.own for side in self for part in side.parts)


def excerpt(text: str) -> Excerpt:
    """The beginning of `text`."""
    words = WORD.findall(text.strip())
    return _side(words, 0, set(range(SHOWN)))


def compared(dropped: str, kept: str) -> Comparison:
    """The two texts from some words before their first difference on."""
    sides = [WORD.findall(text.strip()) for text in (dropped, kept)]
    start = _start(sides[0], sides[1])
    windows = [words[start : start + COMPARED] for words in sides]
    keys = [[word.strip() for word in window] for window in windows]
    blocks = SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks()
    common = [{place for block in blocks for place in range(block[side], block[side] + block.size)} for side in (0, 1)]
    return Comparison(*(_side(words, start, places) for words, places in zip(sides, common, strict=True)))


def _start(left: Sequence[str], right: Sequence[str]) -> int:
    """Where to begin, so that the first difference and as much as possible after it is seen."""
    longest = max(len(left), len(right))
    same = sum(1 for _ in takewhile(lambda pair: pair[0].strip() == pair[1].strip(), zip(left, right, strict=False)))
    return 0 if same == longest else max(0, min(same - BEFORE, longest - SHOWN))


def _side(words: list[str], start: int, common: set[int]) -> Excerpt:
    """`common` are places among the words from `start` on."""
    shown = words[start : start + SHOWN]
    borders = [i for i in range(1, len(shown)) if (i in common) != (i - 1 in common)]
    runs = pairwise([0, *borders, len(shown)]) if shown else ()
    parts = [part for first, last in runs for part in _parts(_joined(shown[first:last]), own=first not in common)]
    return Excerpt(parts, min(start, len(words)), max(0, len(words) - start - SHOWN))


def _parts(text: str, *, own: bool) -> list[Part]:
    """`text` with the space after it by itself, since it is nobody's."""
    bare = text.rstrip()
    return [Part(bare, own), Part(text[len(bare) :], own=False)]


def _joined(words: Sequence[str]) -> str:
    return "".join(map(_short, words))


def _short(word: str) -> str:
    """`word` with no more of its characters, and of the space after it, than the page shows."""
    bare = word.rstrip()
    space = word[len(bare) :][:LONGEST_WORD]
    left_out = len(bare) - LONGEST_WORD
    return bare + space if left_out <= 0 else f"{bare[:LONGEST_WORD]}… ({left_out:,} characters more){space}"


class Shown(NamedTuple):
    """An example with what the page has of its texts."""

    example: Example
    text: Excerpt
    comparison: Comparison | None


class Section(NamedTuple):
    """All that the page says of one type of filter."""

    filter: str
    about: str
    steps: list[Step]
    examples: list[Shown]
    plots: list[Plot]

    @property
    def dropped(self) -> int:
        return sum(step.dropped for step in self.steps)

    @property
    def differ(self) -> bool:
        """Whether two texts stand beside each other."""
        return any(shown.comparison and not shown.comparison.same for shown in self.examples)


def sections_of(report: FilterReport) -> list[Section]:
    """Of the types of filters in their order, those that there is something to show of."""
    sections = [_section(report, name) for name in dict.fromkeys(step.filter for step in report.steps)]
    return [section for section in sections if section.examples or section.plots]


def _section(report: FilterReport, name: str) -> Section:
    steps = [step for step in report.steps if step.filter == name]
    examples = [_shown(example) for example in report.examples if example.filter == name]
    own = {step_name(place, name) for place, step in enumerate(report.steps, 1) if step.filter == name}
    plots = plots_of({key: found for key, found in report.histograms.items() if key in own})
    return Section(name, FILTER_WORDS.get(name, ""), steps, examples, plots)


def _shown(example: Example) -> Shown:
    both = compared(example.text, example.original) if example.original is not None else None
    return Shown(example, excerpt(example.text), both)


def _page(report: FilterReport) -> str:
    template = page_environment(autoescape=True).get_template("filter_report.html")
    return template.render(
        r=report,
        name=Path(report.source).name or report.source,
        conclusion=conclusion(report),
        reasons=ranked_reasons(report),
        sections=sections_of(report),
        height=PLOT,
        most_words=SHOWN,
    )


def filter_card(report: FilterReport) -> str:
    """What `stillhouse filter` prints when it ends: counts, what each filter took, and where the rows are."""
    counts, out = report.counts, Path(report.out)
    lines = [f"filter {report.source}  {report.state}  {out}"]
    ends = [f"kept {counts.kept:,}", f"dropped {counts.dropped:,}"] + [f"aside {counts.failed:,}"] * bool(counts.failed)
    lines.append(f"  rows {counts.candidates:,} -> {', '.join(ends)}")
    took = [f"{step.filter} {step.dropped:,}" for step in report.steps]
    lines += labelled("took", filled(took, "   ", WIDTH - LABEL))
    if report.masked:
        lines += labelled("masked", [f"something in {plural(report.masked, 'kept row')}"])
    time = [duration(report.seconds), f"{report.rows_per_second:,.0f} rows/s", plural(report.workers, "worker")]
    lines += labelled("time", ["   ".join(time)])
    lines += labelled("kept", [report.kept])
    lines += labelled("dropped", [str(out / "dropped.parquet")])
    if counts.failed:
        lines += labelled("aside", [str(out / "aside.jsonl"), *_aside_lines(report)])
    lines += labelled("report", [str(out / "report.html")])
    if counts.kept:
        lines.append(f"next: stillhouse assess {shlex.quote(report.kept)} --reference data/reference/english.jsonl")
    return plain("\n".join(lines))


def _aside_lines(report: FilterReport) -> list[str]:
    """How many rows could not be read, and why the first could not."""
    first = [f"{aside.file}:{aside.line}: {aside.error}" for aside in report.asides[:1]]
    wrapped = [line for one in first for line in textwrap.wrap(one, WIDTH - LABEL)]
    return [f"{plural(report.counts.failed, 'row')} could not be read" + "; the first:" * bool(wrapped), *wrapped]
