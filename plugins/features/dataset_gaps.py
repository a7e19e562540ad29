"""Topics and words of real text that a dataset lacks, as a table and as a seeds file for a recipe."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.shared_options import DataKind
from core.storage.atomic_files import write_text
from filters.collapse.reference_corpus import MOST_DOCUMENTS, ReferenceCorpus
from filters.collapse.text_kinds import PROSE, find_kind, get_kind, has_kind, read_turns
from flows.data.reference_files import load_reference
from flows.rows.dataset_rows import read_dataset_documents
from flows.terminal.suggested_commands import format_command, format_next_line
from flows.terminal.text_format import format_count
from plugins.features.coverage_gaps import MIN_GAP_DOCUMENTS, CoverageGap, find_coverage_gaps
from stillhouse.functions import Columns, Dataset, Name, place_dataset, run_call

if TYPE_CHECKING:
    import polars as pl

WORDS_PER_TOPIC = 3
"""Words in a seed's topic."""
PASSAGE_WORDS = 300
"""Words of a real document in a seed."""
MOST_SHOWN_GAPS = 12
"""Topics in the table, and words."""
GAP_COLUMNS = {"name": str, "here": float, "real": float}


class GapShares(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    here: float
    """Share of the dataset's documents with it, truncated to the lengths of the reference's."""
    real: float


class DatasetGapsReport(BaseModel):
    """The result of `stillhouse gaps`, largest gaps first."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    reference: str
    kind: str = "prose"
    """What was counted, as `assess` names it."""
    unit: str = "word"
    """What was counted, in the singular."""
    documents: int
    real_documents: int
    topics: list[GapShares]
    words: list[GapShares]
    """Units of the kind: words, tokens of code, fields of records."""
    starts: int
    """Texts of the reference that can start a seed; 0 if no text with a gap has a word that names its subject."""
    seeds: int
    """Seeds that were written."""
    out: str | None
    """The file of the seeds, empty where there are none; None without `--out`."""

    def __bool__(self) -> bool:
        return bool(self.topics or self.words)


def find_dataset_gaps(
    source: Path, reference: str, out: Path | None, number: int, kind: str | None = None
) -> DatasetGapsReport:
    """Compare, and write at most `number` seeds to `out`; an empty file where nothing is lacking. Without a `kind`, the units are
    those of the reference's kind if the dataset has it too, else words.

    Raises:
        UsageError: if a text cannot be read or is too small, or `out` exists.
    """
    if out and out.exists():
        raise UsageError(f"{out}: exists already; name another file, or remove it")
    texts = list(map(read_answer_turns, load_reference(reference, Path.cwd()).texts))
    mine = [read_answer_turns(document.text) for document in read_dataset_documents(source)]
    counted = get_kind(kind) if kind else find_kind(texts)
    counted = counted if kind or has_kind(mine, counted) else PROSE
    rows = [(line, text) for line, text in enumerate(texts, 1) if counted.split(text)]
    step = -(-len(rows) // MOST_DOCUMENTS) or 1
    rows = rows[::step]
    real = ReferenceCorpus.from_texts([text for _, text in rows], reference, counted)
    own = real.number_texts(mine)
    gaps = find_coverage_gaps(own, real, number)
    if gaps is None:
        raise UsageError(
            f"{source}: {format_count(len(own), 'document')} and {len(rows)} of {reference} are too few to compare; both need "
            f"{MIN_GAP_DOCUMENTS} with a {counted.unit} in them"
        )

    # Seeds have every field that a family needs: topic, words and passage.
    seeds = []
    for start in gaps.starts:
        line, text = rows[start.place]
        first, passage = start.words[:WORDS_PER_TOPIC], text.split()
        seeds.append(
            {
                "topic": " and ".join(filter(None, (", ".join(first[:-1]), first[-1]))),
                "category": start.topic,
                "words": start.words,
                "text": " ".join(passage[:PASSAGE_WORDS]) if len(passage) > PASSAGE_WORDS else text,
                "source": Path(reference).name,
                "number": line,
            }
        )
    if out:
        write_text(out, "".join(json.dumps(seed, ensure_ascii=False) + "\n" for seed in seeds))
    return DatasetGapsReport(
        dataset=str(source), reference=reference, kind=counted.name, unit=counted.unit,
        documents=gaps.documents, real_documents=gaps.real, topics=_convert_gaps(gaps.topics), words=_convert_gaps(gaps.words),
        starts=len(seeds), seeds=len(seeds) if out else 0,
        out=str(out) if out else None,
    )  # fmt: skip


def read_answer_turns(text: str) -> str:
    """The assistant's turns of a dialogue that is written as JSON; any other text unchanged."""
    turns = read_turns(text)
    return "\n".join(turns.get("assistant", ())) if turns else text


def _convert_gaps(gaps: Sequence[CoverageGap]) -> list[GapShares]:
    return [GapShares(**gap._asdict()) for gap in gaps]


def format_dataset_gaps(report: DatasetGapsReport, number: int) -> str:
    """The output of `stillhouse gaps`, with at most `number` seeds."""
    lines = [
        f"{report.dataset}  {format_count(report.documents, 'document')} compared with {report.real_documents:,} of "
        f"{report.reference}{f' as {report.kind}' if report.unit != 'word' else ''}"
    ]
    without_seeds = f"; {report.out} is written without seeds" if report.out else ""
    if not report:
        return "\n".join([*lines, f"no gaps measurable at this size{without_seeds}"])
    for title, shares in (("topic", report.topics), (report.unit, report.words)):
        if shares:
            lines.append(f"  {f'lacking {title}':<34}{'here':>8}{'real':>8}   share of documents")
            lines += [f"  {share.name:<34}{share.here:>8.1%}{share.real:>8.1%}" for share in shares[:MOST_SHOWN_GAPS]]
            lines += [f"  and {len(shares) - MOST_SHOWN_GAPS:,} more"] * (len(shares) > MOST_SHOWN_GAPS)
    if not report.starts:
        none = f"only {report.unit}s are lacking that any text may have, and no topic to start from"
        if report.topics:
            none = f"no text of a lacking topic has a {report.unit} that names its subject"
        return "\n".join([*lines, f"no seeds: {none}{without_seeds}"])
    if report.out is None:
        out = f"{Path(report.dataset).stem}-gaps.jsonl"
        words = ("gaps", report.dataset, "--reference", report.reference, "--out", out, "-n", str(number))
        return "\n".join([*lines, format_next_line(*words)])
    command = format_command("run", "RECIPE", "--set", f"seeds.path={Path(report.out).resolve()}")
    lines += [f"{format_count(report.seeds, 'seed')}  {report.out}", f"hint: generate samples for the gaps: {command}"]
    return "\n".join(lines)


@dataclass(frozen=True)
class Gaps:
    """Topics and words that real text has and a dataset lacks."""

    report: DatasetGapsReport

    @property
    def topics(self) -> "pl.DataFrame":
        """Name, and the share of documents with it here and in real text; the largest gap first."""
        return _build_frame(self.report.topics)

    @property
    def words(self) -> "pl.DataFrame":
        return _build_frame(self.report.words)


def _build_frame(gaps: Sequence[GapShares]) -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame([gap.model_dump() for gap in gaps], schema=GAP_COLUMNS)


def gaps(
    source: Dataset, reference: Name, out: Name | None = None, *, number: int = 100, kind: DataKind | None = None,
    columns: Columns | None = None,
) -> Gaps:  # fmt: skip
    """Find topics and words that real text has and a dataset lacks, and write at most `number` seeds from them to `out`. Of code,
    tokens take the place of words, and of records, fields; `kind` says what the texts are, `columns`
    which columns hold what.

    Raises:
        UsageError: if a text cannot be read or is too small, or `out` exists.
    """

    def work() -> Gaps:
        with ExitStack() as stack:
            place = place_dataset(source, stack, columns)
            return Gaps(find_dataset_gaps(place, str(reference), Path(out) if out else None, number, kind))

    return run_call(work, None)
