"""How much the texts that a teacher wrote are alike, by recipe: questions, answers, critiques, expressions and code.

    python -m benchmarks.sameness RUN_FOLDER_OR_RECORDING... [--texts N] [--before SOURCE...]

Reads run folders (kept samples), recordings of `run --record`, and JSON lines with a `request` and a `reply`. With `--texts
N`, N texts of each kind at most are drawn, since self-BLEU rises with their number. Each row has its control: the same texts
with the words of each in random order.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks.machine import describe_measurement
from core.project_files import PROJECT
from core.sample import SampleStatus
from core.storage.recording import read_recording
from core.storage.sample_files import read_samples
from filters.collapse.code_structure import outline_code, outline_expression
from filters.collapse.diversity import TokenSample, compute_effective_number, self_bleu
from filters.collapse.matched_samples import TokenCorpus
from filters.collapse.sameness import (
    TextSameness,
    measure_text_sameness,
)

SEED = 7
QUESTION_FIELDS = ("problem", "task", "instruction", "question", "text")
TEXT_KINDS = ("questions", "answers", "critiques")
OUTLINES = {"expressions": outline_expression, "code": outline_code}
SHOWN = 36
"""Characters of a phrase in the table."""


BEFORE = PROJECT / "benchmarks" / "recordings" / "earlier"
INTRODUCTION = """
What one capable model wrote for each recipe. *Opening*: share of texts with the most frequent first two words. *Beginning*:
share with the most frequent beginning of six common words and gaps (numbers, names and rare words). *Equal texts*: share
with the words of the most frequent text. *Self-BLEU*: BLEU-4 of each text against all others; it rises with the number of
texts. *Before*: the first recordings, when each draft had the same two examples. In the last column, the words of each text
are in random order."""


class SamenessRow(NamedTuple):
    """How alike the texts of one kind in one source are."""

    name: str
    kind: str
    texts: int
    phrases: Sequence[str]
    """The most frequent opening and beginning, or the most frequent structure."""
    shares: Sequence[float]
    """Of opening, beginning and equal texts, or of the structure."""
    effective: float
    """Effective number of openings, or of structures."""
    self_bleu: float | None
    shuffled: Sequence[float]
    """Shares of opening and beginning with shuffled words; empty for structures."""


class StructureSameness(NamedTuple):
    """How alike the structures of expressions or programs are."""

    structures: int
    unreadable: int
    """Texts that are no Python, which are not counted above."""
    structure: str
    """The most frequent structure."""
    structure_share: float
    kinds: float
    """Effective number of different structures."""
    self_bleu: float | None
    """Of the structures, each as the words of `outline_expression` or `outline_code`."""


class WrittenText(NamedTuple):
    kind: str
    text: str


class ReceivedReply(NamedTuple):
    fields: Mapping[str, Any]
    asked: str
    """The last message of the request."""


def read_replies(path: Path) -> list[ReceivedReply]:
    """The replies of a run's kept samples, or of a recording. Of several drafts of a sample, the last one."""
    if path.is_dir():
        samples = [sample for part in sorted((path / "samples").glob("*.parquet")) for sample in read_samples(part)]
        kept = [sample for sample in samples if sample.state is SampleStatus.kept]
        return [reply for sample in kept for reply in _keep_last_draft([(t.asked, t.reply) for t in sample.turns])]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    if "request" in rows[0]:
        return [ReceivedReply(row["reply"], row["request"]["messages"][-1]["content"]) for row in rows]
    recorded = [[(reply.asked, reply.reply) for reply in sample.replies] for sample in read_recording(path)]
    return [reply for replies in recorded for reply in _keep_last_draft(replies)]


def _keep_last_draft(replies: Iterable[tuple[str, str]]) -> list[ReceivedReply]:
    parsed = [ReceivedReply(fields, asked) for asked, text in replies if (fields := _parse_fields(text))]
    drafts = [reply for reply in parsed if _is_draft(reply.fields)]
    return [reply for reply in parsed if not _is_draft(reply.fields) or reply is drafts[-1]]


def _parse_fields(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:  # a reply that was repaired later
        return {}
    return found if isinstance(found, dict) else {}


def _is_draft(fields: Mapping[str, Any]) -> bool:
    return bool(fields.keys() & {*QUESTION_FIELDS, "turns", "answers"}) or {"reasoning", "answer"} <= fields.keys()


def list_written_texts(reply: ReceivedReply) -> Iterator[WrittenText]:
    """What a draft or a critique says, by kind. Solutions of others are left out."""
    fields = reply.fields
    if "scores" in fields:
        faults = [fault["fault"] if isinstance(fault, dict) else fault for fault in fields.get("faults", ())]
        yield WrittenText("critiques", " ".join([*faults, fields.get("advice", "")]))
    if not _is_draft(fields):
        return
    turns = fields.get("turns", ())
    asked = [fields[name] for name in QUESTION_FIELDS if name in fields][:1] or [turn["request"] for turn in turns]
    if not asked and "reasoning" in fields:
        asked = [reply.asked]
    yield from (WrittenText("questions", text) for text in asked)
    if "tests" in fields:
        yield WrittenText("code", fields["solution"])
        answers = [fields["explanation"]]
    elif "expression" in fields:
        yield WrittenText("expressions", fields["expression"])
        answers = [fields["solution"]]
    else:
        shown = fields.get("reasoning", fields.get("answer"))
        answers = [*([shown] if shown else ()), *fields.get("answers", ()), *(turn["reply"] for turn in turns)]
    yield from (WrittenText("answers", str(text)) for text in answers)


def shuffle_words(text: str, rng: Random) -> str:
    words = text.split()
    return " ".join(rng.sample(words, len(words)))


def draw_texts(texts: Sequence[str], limit: int | None) -> Sequence[str]:
    return texts if limit is None or len(texts) <= limit else Random(SEED).sample(texts, limit)


def measure_sources(sources: Sequence[Path], limit: int | None = None) -> list[SamenessRow]:
    """A row for each kind of text, expressions and code of each source, in their order."""
    rows = []
    for source in sources:
        written = [text for reply in read_replies(source) for text in list_written_texts(reply)]
        for kind in (*TEXT_KINDS, *OUTLINES):
            texts = draw_texts([text.text for text in written if text.kind == kind], limit)
            if row := _measure_texts(source.stem, kind, texts):
                rows.append(row)
    return rows


def measure_structure_sameness(outlines: Sequence[str | None]) -> StructureSameness | None:
    """The sameness of structures, of which None is an unreadable one; None if all are unreadable."""
    known = [outline for outline in outlines if outline]
    if not known:
        return None
    counts = Counter(known)
    structure, largest = counts.most_common(1)[0]
    corpus = TokenCorpus.from_words([outline.split() for outline in known], {})
    return StructureSameness(
        structures=len(known),
        unreadable=len(outlines) - len(known),
        structure=structure,
        structure_share=largest / len(known),
        kinds=compute_effective_number(counts.values()),
        self_bleu=self_bleu(TokenSample(corpus.ids, corpus.lengths)),
    )


def _measure_texts(name: str, kind: str, texts: Sequence[str]) -> SamenessRow | None:
    if outline := OUTLINES.get(kind):
        structure = measure_structure_sameness([outline(text) for text in texts])
        if structure is None:
            return None
        shares = (structure.structure_share,)
        return SamenessRow(
            name, kind, structure.structures, (structure.structure,), shares, structure.kinds, structure.self_bleu, ()
        )
    rng = Random(SEED)
    found, shuffled = (measure_text_sameness(group) for group in (texts, [shuffle_words(text, rng) for text in texts]))
    if found is None or shuffled is None:
        return None
    return SamenessRow(
        name, kind, found.texts, (found.opening, found.template), _list_shares(found), found.openings, found.self_bleu,
        _list_shares(shuffled)[:2],
    )  # fmt: skip


def _list_shares(found: TextSameness) -> tuple[float, ...]:
    return (found.opening_share, found.template_share, found.repeated_share)


def write_tables(rows: Sequence[SamenessRow], before: Sequence[SamenessRow] = ()) -> str:
    """The rows as two tables. With `before`, each has the earlier shares and self-BLEU of the same name and kind."""
    lines = [
        "| recipe | texts | number | most frequent opening | most frequent beginning | opening, beginning, equal texts | "
        "effective openings | self-BLEU | the same before | opening, beginning with shuffled words |",
        "|---|---|---:|---|---|---:|---:|---:|---:|---:|",
    ]
    structures = [
        "| recipe | structure of | number | most frequent structure | share | effective structures | self-BLEU | "
        "the same before |",
        "|---|---|---:|---|---:|---:|---:|---:|",
    ]
    earlier = {(row.name, row.kind): row for row in before}
    for row in rows:
        phrases = [f"`{_shorten(phrase)}`" for phrase in row.phrases]
        cells = [
            row.name, row.kind, str(row.texts), *phrases, _write_shares(row.shares), f"{row.effective:.1f}",
            _write_bleu(row.self_bleu), _write_before(earlier.get((row.name, row.kind))),
            *([_write_shares(row.shuffled)] if row.shuffled else []),
        ]  # fmt: skip
        (structures if row.kind in OUTLINES else lines).append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *structures])


def _write_shares(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares)


def _write_before(row: SamenessRow | None) -> str:
    return f"{_write_shares(row.shares)}; {_write_bleu(row.self_bleu)} (of {row.texts})" if row else ""


def _write_bleu(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _shorten(text: str) -> str:
    return (text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…").replace("|", "\\|")


def table() -> str:
    """The shipped recordings, or those in STILLHOUSE_RECORDINGS, next to the first ones."""
    folder = Path(os.environ.get("STILLHOUSE_RECORDINGS", PROJECT / "benchmarks" / "recordings"))
    rows = measure_sources(sorted(folder.glob("*.jsonl")))
    before = measure_sources(sorted(BEFORE.glob("*.jsonl")))
    command = "Command: `python -m benchmarks sameness`"
    return f"{describe_measurement()}. {command}.\n\n{INTRODUCTION.strip()}\n\n{write_tables(rows or before, before)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sameness")
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--texts", type=int)
    parser.add_argument(
        "--before", nargs="*", type=Path, default=[], help="earlier folders or recordings of the same names"
    )
    given = parser.parse_args()
    tables = write_tables(measure_sources(given.sources, given.texts), measure_sources(given.before, given.texts))
    sys.stdout.write(f"{describe_measurement()}.\n\n{tables}\n")


if __name__ == "__main__":
    main()
