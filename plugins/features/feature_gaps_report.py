"""The result of `stillhouse feature-gaps`, as a table, as JSON and as a page. Computes nothing."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from core.storage.atomic_files import write_text
from flows.report.pages import create_page_environment
from flows.terminal.suggested_commands import format_command, format_next_line
from flows.terminal.text_format import format_count, format_one_line
from plugins.features.config import EMBEDDED_MODEL
from plugins.features.lacking_features import FEW_DOCUMENTS

MOST_SHOWN_FEATURES = 12
"""Features in the table."""
SHOWN_PASSAGES = 2
"""Passages of a feature in the table and in the report."""
MARK_START, MARK_END = "«", "»"
SHOWN_CHARACTERS = 60
"""Characters on each side of the strongest token in the terminal."""


class MarkedPassage(BaseModel):
    """A real text in which a feature is active."""

    model_config = ConfigDict(frozen=True)

    text: str
    marks: list[tuple[int, int]]
    """The characters of the active tokens, in order."""
    strongest: int = 0
    """The character where the most active token begins."""
    number: int
    """The row of the reference, from 1 on."""

    def split(self) -> list[tuple[str, bool]]:
        """The text in parts, each with whether it is marked."""
        parts, at = [], 0
        for start, end in self.marks:
            parts += [(self.text[at:start], False), (self.text[start:end], True)]
            at = end
        return [(part, marked) for part, marked in [*parts, (self.text[at:], False)] if part]


class FeatureGap(BaseModel):
    """A feature that real text has and the dataset lacks."""

    model_config = ConfigDict(frozen=True)

    feature: int
    here: float
    """Share of the dataset's documents with it, at equal lengths."""
    real: float
    tokens: list[str]
    """The tokens at which it is active, most frequent first."""
    word: str | None = None
    """The word, if it is active at a single one: then `stillhouse gaps` finds the same."""
    label: str | None = None
    """What it means, in words, where a teacher explained it and the explanation was confirmed."""
    passages: list[MarkedPassage]


class RandomGaps(BaseModel):
    """The same comparison by the random dictionary."""

    model_config = ConfigDict(frozen=True)

    tested: int
    gaps: int
    here: float | None = None
    """Shares of its largest gap."""
    real: float | None = None


class FeatureGapsReport(BaseModel):
    """The result of `stillhouse feature-gaps`, largest gaps first."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    reference: str
    dictionary: str
    model: str
    layer: int
    explained_variance: float
    documents: int
    real_documents: int
    tokens: int
    """Of the dataset, after both sides were truncated to equal lengths."""
    real_tokens: int
    tested: int
    """Features that were tested."""
    known_share: float
    """Share of the reference's features that are present anywhere in the dataset."""
    gaps: list[FeatureGap]
    random: RandomGaps
    seeds: int
    """Seeds that were written."""
    starts: int
    """Texts of the reference that can start a seed."""
    out: str | None

    def __bool__(self) -> bool:
        return bool(self.gaps)

    @property
    def model_name(self) -> str:
        return "the embedded teacher" if self.model == EMBEDDED_MODEL else self.model


def format_feature_gaps(report: FeatureGapsReport, number: int) -> str:
    """The output of `stillhouse feature-gaps`, with at most `number` seeds."""
    lines = [
        f"{report.dataset}  {format_count(report.documents, 'document')} compared with {report.real_documents:,} of "
        f"{report.reference} at equal lengths ({report.tokens:,} and {report.real_tokens:,} tokens)",
        f"features of {report.model_name}, layer {report.layer}  {report.tested:,} tested, family-wise error 1 % (Holm)",
    ]
    if min(report.documents, report.real_documents) < FEW_DOCUMENTS:
        lines.append(
            f"  fewer than {FEW_DOCUMENTS} documents on a side: only large gaps of common features can be found"
        )
    if report.known_share < 0.5:
        lines.append(
            f"  only {report.known_share:.0%} of the reference's features occur in the dataset: another language or kind of text?"
        )
    if report.gaps:
        lines.append(f"  {'lacking feature':<34}{'here':>8}{'real':>8}   share of documents")
    for gap in report.gaps[:MOST_SHOWN_FEATURES]:
        name = gap.label or " ".join(gap.tokens) or "(no text)"
        shown = format_one_line(f"{gap.feature}: {name}", 33)
        note = "   a word: `gaps` finds it too" if gap.word else ""
        lines.append(f"  {shown:<34}{gap.here:>8.1%}{gap.real:>8.1%}{note}")
        lines += [f"      {_format_passage(passage)}" for passage in gap.passages[:SHOWN_PASSAGES]]
    if len(report.gaps) > MOST_SHOWN_FEATURES:
        lines.append(f"  and {len(report.gaps) - MOST_SHOWN_FEATURES:,} more")
    if not report.gaps:
        lines.append("no gaps measurable at this size")
    lines.append(f"  random dictionary, the same test: {_describe_random_gaps(report)}")
    if not report.starts:
        return "\n".join([*lines, *([f"no seeds: {report.out} is written without seeds"] if report.out else [])])
    if report.out is None:
        out = f"{Path(report.dataset).stem}-gaps.jsonl"
        words = (
            "feature-gaps", report.dataset, "--reference", report.reference, "--features", report.dictionary, "--out", out,
            "-n", str(number),
        )  # fmt: skip
        return "\n".join([*lines, format_next_line(*words)])
    command = format_command("run", "RECIPE", "--set", f"seeds.path={Path(report.out).resolve()}")
    lines += [f"{format_count(report.seeds, 'seed')}  {report.out}", f"hint: generate samples for the gaps: {command}"]
    return "\n".join(lines)


def _describe_random_gaps(report: FeatureGapsReport) -> str:
    """The control in words."""
    random = report.random
    if not random.gaps:
        return "no gap, so what is listed is due to the learned features" if report.gaps else "no gap"
    largest = f"the largest {random.here:.1%} here, {random.real:.1%} real"
    note = ", so counting tokens explains part of the list" if 2 * random.gaps >= len(report.gaps) else ""
    return f"{format_count(random.gaps, 'gap')} of {random.tested:,} tested, {largest}{note}"


def _format_passage(passage: MarkedPassage) -> str:
    """The surroundings of the strongest token on one line, with marked tokens."""
    return format_one_line(mark_passage_text(passage, SHOWN_CHARACTERS), 2 * SHOWN_CHARACTERS + 20)


def mark_passage_text(passage: MarkedPassage, around: int = 250) -> str:
    """The text with its active tokens between marks, up to `around` characters on each side of the strongest."""
    start, end = passage.strongest - around, passage.strongest + around
    marks = [(max(a, start), min(b, end)) for a, b in passage.marks if a < end and b > start]
    parts, at = [], max(0, start)
    for a, b in marks:
        parts += [passage.text[at:a], MARK_START, passage.text[a:b], MARK_END]
        at = b
    parts.append(passage.text[at : max(at, end)])
    return ("…" if start > 0 else "") + "".join(parts) + ("…" if end < len(passage.text) else "")


TEMPLATES = Path(__file__).parent / "templates"


def write_feature_gaps_page(path: Path, report: FeatureGapsReport) -> None:
    """Write a page that loads nothing from the network."""
    page = create_page_environment(TEMPLATES).get_template("feature_gaps.html")
    shown = report.gaps[:MOST_SHOWN_FEATURES]
    control = _describe_random_gaps(report)
    write_text(path, page.render(report=report, shown=shown, passages=SHOWN_PASSAGES, control=control))
