"""Ours: each dropped row with the kept one that it repeats, and the CPU seconds of the two halves of the work. Rows are parsed
as `stillhouse filter` parses them (`flows.rows`), by orjson.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.peers.dedup_work import NGRAM, THRESHOLD
from filters.near import near_duplicates
from filters.shingles import shingle_sets


def texts(file: Path) -> Iterator[str]:
    with file.open("rb") as lines:
        for line in lines:
            yield orjson.loads(line)["text"]


def main() -> None:
    source, out = map(Path, sys.argv[1:])
    began = time.process_time()
    sets = shingle_sets(texts(source), NGRAM)
    shingled = time.process_time()
    found = near_duplicates(sets, THRESHOLD)
    detail = {"read_and_shingle": shingled - began, "compare": time.process_time() - shingled}
    pairs = list(zip(found.repeated.tolist(), found.original.tolist(), strict=True))
    out.write_text(json.dumps({"pairs": pairs, "detail": detail}), encoding="utf-8")


main()
