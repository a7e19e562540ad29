"""Ours: each dropped row with the kept row that it repeats, and the CPU seconds of both steps. Rows are parsed by orjson, as in
`stillhouse filter` (`flows.rows.dataset_rows`).
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.peers.dedup_work import NGRAM, THRESHOLD
from filters.duplicates.shingles import build_shingle_sets
from filters.duplicates.similarity_join import find_near_duplicates


def read_texts(file: Path) -> Iterator[str]:
    with file.open("rb") as lines:
        for line in lines:
            yield orjson.loads(line)["text"]


def main() -> None:
    source, out = map(Path, sys.argv[1:])
    began = time.process_time()
    sets = build_shingle_sets(read_texts(source), NGRAM)
    shingled = time.process_time()
    matches = find_near_duplicates(sets, THRESHOLD)
    detail = {"read_and_shingle": shingled - began, "compare": time.process_time() - shingled}
    pairs = list(zip(matches.repeated.tolist(), matches.original.tolist(), strict=True))
    out.write_text(json.dumps({"pairs": pairs, "detail": detail}), encoding="utf-8")


main()
