"""Near-duplicate removal compared with peers, on corpora with known near-duplicates; the index on disk; signature files.

    STILLHOUSE_PEERS=FOLDER python -m benchmarks.dedup [--rows 100000] [--most 1000000]

Every tool is a separate process that reads the same JSON lines; its CPU seconds are those of the whole process. A peer that is
not installed in the folder is left out.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import polars as pl

from benchmarks.children import FinishedProcess, run_process
from benchmarks.corpus import NGRAM, PlantedCorpus
from benchmarks.machine import describe_measurement
from benchmarks.peers.dedup_work import THRESHOLD, read_texts
from filters.duplicates.datasketch_files import SignatureSettings, build_lsh, read_signatures, write_signatures
from filters.duplicates.duplicate_index import DuplicateIndex
from filters.duplicates.shingles import build_shingle_sets
from filters.duplicates.signatures import PERMUTATION_SCHEME, PERMUTATION_SEED, compute_signatures

COMMAND = "`stillhouse filter`"
PEERS = ("datasketch", "rensa", "gaoya", "text-dedup", "datatrove")
ADDED = 1000
ROUNDS = 3
"""Runs of each tool, alternating with the others; one run of those in LONG_RUNS."""
LONG_RUNS = ("text-dedup", "datatrove")


class PreparedCorpus(NamedTuple):
    """A corpus on disk with its near-duplicate pairs."""

    file: Path
    rows: int
    near: list[tuple[int, int]]


class DedupOutcome(NamedTuple):
    ended: FinishedProcess
    dropped: list[int]
    detail: dict[str, float]


def prepare_corpus(rows: int, folder: Path, *, templated: bool = False) -> PreparedCorpus:
    file = folder / f"{'templated' if templated else 'plain'}-{rows}.jsonl"
    near: list[tuple[int, int]] = []
    row = 0
    with file.open("w", encoding="utf-8") as out:
        for batch, planted in PlantedCorpus(rows, templated=templated).batches():
            for text in batch:
                out.write(json.dumps({"row": row, "text": text}) + "\n")
                row += 1
            near += [(pair.earlier, pair.later) for pair in planted if pair.similarity >= THRESHOLD]
    return PreparedCorpus(file, rows, near)


def run_tool(tool: str, corpus: PreparedCorpus, folder: Path) -> DedupOutcome | None:
    if tool == COMMAND:
        return run_command(corpus, folder)
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    python = Path(os.environ.get("STILLHOUSE_PEERS", "peers")).resolve() / tool / "bin" / "python"
    if tool in ("ours", "datasketch"):
        python = Path(sys.executable)
    if not python.exists():
        return None
    ended = run_process(
        [str(python), "-m", f"benchmarks.peers.dedup_{tool.replace('-', '_')}", str(corpus.file), str(out)],
        timeout=1800,
    )
    if ended.code or not out.exists():
        sys.exit(f"{tool} ended with {ended.code}: {ended.err[-2000:]}")
    result = json.loads(out.read_text(encoding="utf-8"))
    if tool == "ours":
        return DedupOutcome(
            ended, [later for later, _ in result["pairs"]], result["detail"] | score_pairs(result["pairs"], corpus)
        )
    return DedupOutcome(ended, result, {})


def run_command(corpus: PreparedCorpus, folder: Path) -> DedupOutcome:
    """The whole command, with its start, processes, files and page."""
    out = folder / "filtered"
    shutil.rmtree(out, ignore_errors=True)
    options = ["--out", str(out), "--filters", "minhash", "--quiet"]
    ended = run_process([sys.executable, "-m", "stillhouse", "filter", str(corpus.file), *options], timeout=1800)
    if ended.code:
        sys.exit(f"the command ended with {ended.code}: {ended.err[-2000:]}")
    rows = pl.read_parquet(out / "dropped.parquet", columns=["row"])["row"]  # the corpus' own column of that name
    return DedupOutcome(ended, rows.to_list(), {})


def score_pairs(pairs: list[tuple[int, int]], corpus: PreparedCorpus) -> dict[str, float]:
    """Number of our pairs that are near-duplicates word by word, with a kept partner."""
    wanted = {row for pair in pairs for row in pair}
    words = {row: text.split() for row, text in read_texts(corpus.file) if row in wanted}
    dropped = {later for later, _ in pairs}
    right = sum(_jaccard_similarity(words[a], words[b]) >= THRESHOLD and b not in dropped for a, b in pairs)
    return {"right": right}


def _jaccard_similarity(left: list[str], right: list[str]) -> float:
    one, other = ({tuple(w[i : i + NGRAM]) for i in range(max(1, len(w) - NGRAM + 1))} for w in (left, right))
    return len(one & other) / len(one | other)


def recall(outcome: DedupOutcome, corpus: PreparedCorpus) -> float:
    dropped = set(outcome.dropped)
    return sum(a in dropped or b in dropped for a, b in corpus.near) / len(corpus.near)


def precision(outcome: DedupOutcome, corpus: PreparedCorpus, near: set[int]) -> float:
    """Share of dropped rows in a near-duplicate pair; for ours, of the kept row that they name."""
    if "right" in outcome.detail:
        return outcome.detail["right"] / len(outcome.dropped)
    return sum(row in near for row in outcome.dropped) / max(1, len(outcome.dropped))


@cache
def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--most", type=int, default=1_000_000)
    return parser.parse_args(sys.argv[1:] if sys.argv[0].endswith("dedup.py") else [])


def table() -> str:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, templated = prepare_corpus(options.rows, folder), prepare_corpus(options.rows, folder, templated=True)
        parts = [
            f"{describe_measurement()}; stillhouse {version('stillhouse')}, numpy {version('numpy')}. "
            "Command: `STILLHOUSE_PEERS=FOLDER python -m benchmarks.dedup`.",
            INTRODUCTION,
            *compare_peers(plain, templated, folder),
            *measure_sizes(options.rows, options.most, folder),
        ]
    return "\n\n".join(parts)


INTRODUCTION = """Near-duplicates: Jaccard similarity of 0.8 or more in word 5-grams, counted on words. *Recall*: share of the
planted near-duplicate pairs of which a document is dropped. *Precision*: share of the dropped documents that have a
near-duplicate; for ours, whose named document is kept and is a near-duplicate. Templated: 70 % of each document is one of five
templates, and one document in twenty is a variant of another. text-dedup, datatrove and datasketch check no candidate, as
these are commonly used. Ours, datatrove and text-dedup
read rows in their own way (ours and datatrove by orjson); the others get rows from Python's json, about 0.1 s of their time.
A tool that ran once is compared with our median."""


def compare_peers(plain: PreparedCorpus, templated: PreparedCorpus, folder: Path) -> Iterator[str]:
    for corpus, title in ((plain, "plain"), (templated, "templated")):
        tools = ("ours", COMMAND, *PEERS) if corpus is plain else ("ours", COMMAND, *PEERS[:4])
        rounds = [
            {tool: run_tool(tool, corpus, folder) for tool in tools if not i or tool not in LONG_RUNS}
            for i in range(ROUNDS)
        ]
        yield f"### {corpus.rows:,} {title} documents\n\n" + _format_comparison(corpus, rounds)


def _format_comparison(corpus: PreparedCorpus, rounds: list[dict[str, DedupOutcome | None]]) -> str:
    """Median CPU seconds of the rounds, and the median of the ratios within a round; of a tool that ran once, the ratio to our
    median, since the first of our runs is the slowest.
    """
    first = {tool: outcome for tool, outcome in rounds[0].items() if outcome}
    near = {row for pair in corpus.near for row in pair} | set(first["ours"].dropped)
    lines = [
        "| tool | runs | CPU s | µs a document | CPU, times ours | peak MB | dropped | recall | precision |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    ours = median(one["ours"].ended.cpu for one in rounds if one["ours"])
    for tool, outcome in first.items():
        pairs = [(one[tool], one["ours"]) for one in rounds if one.get(tool)]
        cpus = [a.ended.cpu for a, _ in pairs if a]
        ratios = [a.ended.cpu / b.ended.cpu for a, b in pairs if a and b]
        cpu = median(cpus)
        ratio = median(ratios) if len(ratios) > 1 else cpu / ours
        lines.append(
            f"| {tool} | {len(cpus)} | {cpu:.2f} | {cpu / corpus.rows * 1e6:.1f} | {ratio:.1f} | "
            f"{outcome.ended.peak_kb / 1024:,.0f} | {len(outcome.dropped):,} | {recall(outcome, corpus):.4f} | "
            f"{precision(outcome, corpus, near):.4f} |"
        )
    return "\n".join(lines)


def measure_sizes(rows: int, most: int, folder: Path) -> Iterator[str]:
    plain = prepare_corpus(rows, folder)
    lines = [
        "| documents | CPU s | read and shingle, µs a document | compare, µs a document | peak MB | recall | precision |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size in sorted({rows // 10, rows, most}):
        corpus = prepare_corpus(size, folder)  # the last corpus, of `most` rows, is indexed too
        outcome = run_tool("ours", corpus, folder)
        if outcome:
            shingle, compare = (outcome.detail[name] / size * 1e6 for name in ("read_and_shingle", "compare"))
            lines.append(
                f"| {size:,} | {outcome.ended.cpu:.2f} | {shingle:.1f} | {compare:.1f} | {outcome.ended.peak_kb / 1024:,.0f} | "
                f"{recall(outcome, corpus):.4f} | {precision(outcome, corpus, set()):.4f} |"
            )
    yield (
        "### Ours by size\n\nPlain documents; reading is parsing JSON lines, and shingling begins with raw text.\n\n"
        + "\n".join(lines)
    )
    yield "### The index\n\n" + _measure_index(corpus, folder)
    yield "### Signature files of datasketch\n\n" + _measure_signature_files(plain, folder)


def _measure_index(corpus: PreparedCorpus, folder: Path) -> str:
    """Add all but the last rows at once, then check and add the last rows."""
    path = folder / "index"
    rows = (text for _, text in read_texts(corpus.file))
    began = time.process_time()
    DuplicateIndex(path).add(build_shingle_sets(islice(rows, corpus.rows - ADDED), NGRAM), "earlier")
    build = time.process_time() - began
    new = list(rows)
    began = time.process_time()
    index = DuplicateIndex(path)
    opened = time.process_time()
    size = index.size_bytes / len(index)
    sets = build_shingle_sets(new, NGRAM)
    repeated = {corpus.rows - ADDED + place for place in index.check(sets, THRESHOLD).repeated.tolist()}
    index.add(sets, "new")
    ended = time.process_time()
    late = {later for earlier, later in corpus.near if later >= corpus.rows - ADDED > earlier}
    wrong = repeated - {later for _, later in corpus.near}
    return (
        f"{corpus.rows - ADDED:,} plain documents at once: {build:.1f} s of CPU, {size:.1f} bytes a document on disk. Opened in "
        f"{(opened - began) * 1000:.1f} ms; {ADDED:,} more documents shingled, checked and added: {ended - opened:.3f} s of CPU; "
        f"{len(late & repeated)} of {len(late)} that repeat an earlier document found, {len(wrong)} more named."
    )


def _measure_signature_files(corpus: PreparedCorpus, folder: Path) -> str:
    """Write all but the last rows, load them as a `MinHashLSH`, and query it and an importing index with the last rows."""
    file, count = folder / "signatures.parquet", corpus.rows - ADDED
    texts = [text for _, text in read_texts(corpus.file)]
    sets = build_shingle_sets(texts, NGRAM)
    new = sets.slice_rows(count, corpus.rows)
    began = time.process_time()
    write_signatures(file, [([str(row) for row in range(count)], sets.slice_rows(0, count))], SignatureSettings(NGRAM))
    written = time.process_time()
    table = read_signatures(file)
    lsh = build_lsh(table, table.keys, THRESHOLD)
    loaded = time.process_time()
    from datasketch import MinHash

    signatures = compute_signatures(build_shingle_sets(texts[count:], NGRAM), table.signatures.shape[1])
    queried = {
        row
        for row, values in enumerate(signatures, count)
        if lsh.query(MinHash(hashvalues=values, seed=PERMUTATION_SEED, scheme=PERMUTATION_SCHEME))
    }
    ended = time.process_time()
    index = DuplicateIndex(folder / "imported", ngram=NGRAM)
    index.import_signatures(file, "earlier")
    repeated = {count + place for place in index.check(new, THRESHOLD).repeated.tolist()}
    late = {later for earlier, later in corpus.near if later >= count > earlier}
    return (
        f"{count:,} plain documents: written in {written - began:.1f} s of CPU, {file.stat().st_size / count:.0f} bytes each; "
        f"loaded as `MinHashLSH` in {loaded - written:.1f} s; {ADDED:,} queries in {ended - loaded:.2f} s propose "
        f"{len(late & queried)} of {len(late)} that repeat an earlier document; an index that imported the file names "
        f"{len(late & repeated)} of them and {len(repeated - late)} more."
    )


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
