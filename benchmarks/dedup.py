"""Near-duplicate removal beside peers, on corpora whose near-duplicates are known; and the index on disk.

    STILLHOUSE_PEERS=FOLDER python -m benchmarks.dedup [--rows 100000] [--most 1000000]

Every tool is a process of its own that reads the same JSON lines; its CPU seconds are of all of it, from start to end. A peer
that is not installed below the folder is left out.
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

from benchmarks.children import Ended, ran
from benchmarks.corpus import NGRAM, Corpus
from benchmarks.machine import measured_on
from benchmarks.peers.dedup_work import THRESHOLD, texts
from filters.index import Index
from filters.shingles import shingle_sets

COMMAND = "`stillhouse filter`"
PEERS = ("datasketch", "rensa", "gaoya", "text-dedup", "datatrove")
ADDED = 1000
ROUNDS = 3
"""Runs of each tool, in turn with the others; of those in LONG_RUNS one."""
LONG_RUNS = ("text-dedup", "datatrove")


class Made(NamedTuple):
    """A corpus on disk, and which of its pairs are near-duplicates."""

    file: Path
    rows: int
    near: list[tuple[int, int]]


class Outcome(NamedTuple):
    ended: Ended
    dropped: list[int]
    detail: dict[str, float]


def made(rows: int, folder: Path, *, templated: bool = False) -> Made:
    file = folder / f"{'templated' if templated else 'plain'}-{rows}.jsonl"
    near: list[tuple[int, int]] = []
    row = 0
    with file.open("w", encoding="utf-8") as out:
        for batch, planted in Corpus(rows, templated=templated).batches():
            for text in batch:
                out.write(json.dumps({"row": row, "text": text}) + "\n")
                row += 1
            near += [(pair.earlier, pair.later) for pair in planted if pair.similarity >= THRESHOLD]
    return Made(file, rows, near)


def run(tool: str, corpus: Made, folder: Path) -> Outcome | None:
    if tool == COMMAND:
        return command(corpus, folder)
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    python = Path(os.environ.get("STILLHOUSE_PEERS", "peers")).resolve() / tool / "bin" / "python"
    if tool in ("ours", "datasketch"):
        python = Path(sys.executable)
    if not python.exists():
        return None
    ended = ran(
        [str(python), "-m", f"benchmarks.peers.dedup_{tool.replace('-', '_')}", str(corpus.file), str(out)],
        timeout=1800,
    )
    if ended.code or not out.exists():
        sys.exit(f"{tool} ended with {ended.code}: {ended.err[-2000:]}")
    found = json.loads(out.read_text(encoding="utf-8"))
    if tool == "ours":
        return Outcome(ended, [later for later, _ in found["pairs"]], found["detail"] | judged(found["pairs"], corpus))
    return Outcome(ended, found, {})


def command(corpus: Made, folder: Path) -> Outcome:
    """The whole command, with its start, processes, files and page."""
    out = folder / "filtered"
    shutil.rmtree(out, ignore_errors=True)
    options = ["--out", str(out), "--filters", "minhash", "--quiet"]
    ended = ran([sys.executable, "-m", "flows", "filter", str(corpus.file), *options], timeout=1800)
    if ended.code:
        sys.exit(f"the command ended with {ended.code}: {ended.err[-2000:]}")
    rows = pl.read_parquet(out / "dropped.parquet", columns=["row"])["row"]  # the corpus' own column of that name
    return Outcome(ended, rows.to_list(), {})


def judged(pairs: list[tuple[int, int]], corpus: Made) -> dict[str, float]:
    """How many of our pairs are near-duplicates word by word, with a partner that stays."""
    wanted = {row for pair in pairs for row in pair}
    words = {row: text.split() for row, text in texts(corpus.file) if row in wanted}
    gone = {later for later, _ in pairs}
    right = sum(_similarity(words[a], words[b]) >= THRESHOLD and b not in gone for a, b in pairs)
    return {"right": right}


def _similarity(left: list[str], right: list[str]) -> float:
    one, other = ({tuple(w[i : i + NGRAM]) for i in range(max(1, len(w) - NGRAM + 1))} for w in (left, right))
    return len(one & other) / len(one | other)


def recall(outcome: Outcome, corpus: Made) -> float:
    gone = set(outcome.dropped)
    return sum(a in gone or b in gone for a, b in corpus.near) / len(corpus.near)


def precision(outcome: Outcome, corpus: Made, near: set[int]) -> float:
    """Of what was dropped, how much is in a near-duplicate pair; for ours, how much is one of the kept row that it names."""
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
        plain, templated = made(options.rows, folder), made(options.rows, folder, templated=True)
        parts = [
            f"{measured_on()}; stillhouse {version('stillhouse')}, numpy {version('numpy')}. "
            "Command: `STILLHOUSE_PEERS=FOLDER python -m benchmarks.dedup`.",
            INTRODUCTION,
            *peers(plain, templated, folder),
            *sizes(options.rows, options.most, folder),
        ]
    return "\n\n".join(parts)


INTRODUCTION = """Near-duplicates: Jaccard similarity of 0.8 or more in word 5-grams, counted on words. *Recall*: share of the
planted near-duplicate pairs of which one goes. *Precision*: share of what goes that has a near-duplicate; for ours, that
names one which stays. Templated: 70 % of each document is one of five templates, and one document in twenty is a variant of
another. text-dedup, datatrove and datasketch check no candidate, as these are commonly used. Ours, datatrove and text-dedup
read rows in their own way (ours and datatrove by orjson); the others are handed them by Python's json, some 0.1 s of theirs.
Of a tool that ran once, the ratio is to our median."""


def peers(plain: Made, templated: Made, folder: Path) -> Iterator[str]:
    for corpus, title in ((plain, "plain"), (templated, "templated")):
        tools = ("ours", COMMAND, *PEERS) if corpus is plain else ("ours", COMMAND, *PEERS[:4])
        rounds = [
            {tool: run(tool, corpus, folder) for tool in tools if not i or tool not in LONG_RUNS} for i in range(ROUNDS)
        ]
        yield f"### {corpus.rows:,} {title} documents\n\n" + _compared(corpus, rounds)


def _compared(corpus: Made, rounds: list[dict[str, Outcome | None]]) -> str:
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


def sizes(rows: int, most: int, folder: Path) -> Iterator[str]:
    lines = [
        "| documents | CPU s | read and shingle, µs a document | compare, µs a document | peak MB | recall | precision |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for many in sorted({rows // 10, rows, most}):
        corpus = made(many, folder)  # the last one, of `most` rows, is indexed too
        outcome = run("ours", corpus, folder)
        if outcome:
            shingle, compare = (outcome.detail[name] / many * 1e6 for name in ("read_and_shingle", "compare"))
            lines.append(
                f"| {many:,} | {outcome.ended.cpu:.2f} | {shingle:.1f} | {compare:.1f} | {outcome.ended.peak_kb / 1024:,.0f} | "
                f"{recall(outcome, corpus):.4f} | {precision(outcome, corpus, set()):.4f} |"
            )
    yield (
        "### Ours by size\n\nPlain documents; reading is parsing JSON lines, and shingling begins with raw text.\n\n"
        + "\n".join(lines)
    )
    yield "### The index\n\n" + _index(corpus, folder)


def _index(corpus: Made, folder: Path) -> str:
    """Adds all but the last rows at once, then checks those and adds them."""
    place = folder / "index"
    rows = (text for _, text in texts(corpus.file))
    began = time.process_time()
    Index(place).add(shingle_sets(islice(rows, corpus.rows - ADDED), NGRAM), "earlier")
    build = time.process_time() - began
    new = list(rows)
    began = time.process_time()
    index = Index(place)
    opened = time.process_time()
    size = index.bytes / len(index)
    sets = shingle_sets(new, NGRAM)
    repeated = {corpus.rows - ADDED + place for place in index.check(sets, THRESHOLD).repeated.tolist()}
    index.add(sets, "new")
    ended = time.process_time()
    late = {later for earlier, later in corpus.near if later >= corpus.rows - ADDED > earlier}
    wrong = repeated - {later for _, later in corpus.near}
    return (
        f"{corpus.rows - ADDED:,} plain documents at once: {build:.1f} s of CPU, {size:.1f} bytes a document on disk. Opened in "
        f"{(opened - began) * 1000:.1f} ms; {ADDED:,} more documents shingled, checked and added: {ended - opened:.3f} s of CPU; "
        f"{len(late & repeated)} of {len(late)} that repeat an earlier one found, {len(wrong)} more named."
    )


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
