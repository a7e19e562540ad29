"""What real text has and a dataset lacks, as a table and as a seeds file that a recipe takes."""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.store import write_text
from filters.draws import Corpus, tokens
from filters.gaps import FEWEST_DOCUMENTS, Gap, Start, gaps
from filters.reference import MOST_DOCUMENTS, Reference
from flows.rows import documents
from flows.stages import read_texts
from flows.words import plural

TOPIC_WORDS = 3
"""Words of which a seed's topic is made."""
PASSAGE = 300
"""Words of a real document that a seed holds."""
SHOWN = 12
"""Topics, and words, that the table shows."""


class Share(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    here: float
    """Share of the dataset's documents with it, cut to the lengths of the reference's."""
    real: float


class GapsReport(BaseModel):
    """What `stillhouse gaps` found, the most lacking first."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    reference: str
    documents: int
    real_documents: int
    topics: list[Share]
    words: list[Share]
    starts: int
    """Texts of the reference that seeds can begin from: none, where words alone are lacking that any text may have."""
    seeds: int
    """Seeds that were written."""
    out: str | None
    """Where they are; None where none were asked for, or none can be made."""

    def __bool__(self) -> bool:
        return bool(self.topics or self.words)


def find_gaps(source: Path, reference: Path, out: Path | None, number: int) -> GapsReport:
    """Compare, and write `number` seeds at the most to `out`; none where nothing lacks.

    Raises:
        UsageError: if one of them cannot be read or is too small, or `out` is there.
    """
    if out and out.exists():
        raise UsageError(f"{out}: is there already; name another file, or remove it")
    rows = [(line, text) for line, text in enumerate(read_texts(reference), 1) if tokens(text)]
    step = -(-len(rows) // MOST_DOCUMENTS) or 1
    rows = rows[::step]
    real = Reference.of([text for _, text in rows], str(reference))
    own = [words for document in documents(source) if (words := tokens(document.text))]
    found = gaps(Corpus.of(own, real.vocabulary), real, number)
    if found is None:
        raise UsageError(
            f"{source}: {plural(len(own), 'document')} beside {len(rows)} of {reference} are too few to compare; both need "
            f"{FEWEST_DOCUMENTS} with a word in them"
        )
    seeds = list(_seeds(found.starts, rows, reference.name)) if found else []
    if out and seeds:
        write_text(out, "".join(json.dumps(seed, ensure_ascii=False) + "\n" for seed in seeds))
    return GapsReport(
        dataset=str(source), reference=str(reference), documents=found.documents, real_documents=found.real,
        topics=_shares(found.topics), words=_shares(found.words), starts=len(seeds), seeds=len(seeds) if out else 0,
        out=str(out) if out and seeds else None,
    )  # fmt: skip


def _shares(found: Sequence[Gap]) -> list[Share]:
    return [Share(**gap._asdict()) for gap in found]


def _seeds(starts: Sequence[Start], rows: Sequence[tuple[int, str]], reference: str) -> Iterator[dict[str, Any]]:
    """What a seed of any family needs that begins from a topic, from words or from a passage."""
    for start in starts:
        line, text = rows[start.place]
        yield {
            "topic": _listed(start.words[:TOPIC_WORDS]) or start.topic,
            "category": start.topic,
            "words": start.words,
            "text": _passage(text),
            "source": reference,
            "number": line,
        }


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _passage(text: str) -> str:
    words = text.split()
    return text if len(words) <= PASSAGE else " ".join(words[:PASSAGE])


def gaps_text(report: GapsReport) -> str:
    """What `gaps` prints."""
    lines = [f"{report.dataset}  {report.documents:,} documents beside {report.real_documents:,} of {report.reference}"]
    if not report:
        return "\n".join([*lines, "  nothing of the reference is lacking that can be told at this size"])
    for title, shares in (("topic", report.topics), ("word", report.words)):
        if shares:
            lines.append(f"  {f'lacking {title}':<34}{'here':>8}{'real':>8}   share of documents")
            lines += [f"  {share.name:<34}{share.here:>8.1%}{share.real:>8.1%}" for share in shares[:SHOWN]]
            lines += [f"  and {len(shares) - SHOWN:,} more"] * (len(shares) > SHOWN)
    if not report.starts:
        return "\n".join([*lines, "no seeds: what is lacking is what any text may have, and no topic to begin from"])
    if report.out is None:
        return "\n".join([*lines, "next: the same with --out SEEDS.jsonl, seeds for what is lacking"])
    return "\n".join(
        [
            *lines,
            f"{plural(report.seeds, 'seed')}  {report.out}",
            f"next: stillhouse run RECIPE --set {shlex.quote(f'seeds.path={report.out}')}",
        ]
    )
