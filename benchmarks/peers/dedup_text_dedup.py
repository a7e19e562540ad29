"""text-dedup: its command, 128 permutations in 16 bands of 8 rows, xxh3, two processes."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from datasets import load_from_disk

from benchmarks.peers.dedup_work import NGRAM, THRESHOLD, main, read_texts


def find_dropped_rows(source: Path) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "path": "json", "data_files": source, "split": "train", "cache_dir": f"{folder}/cache", "output": f"{folder}/kept",
            "column": "text", "ngram": NGRAM, "min_length": 0, "num_perm": 128, "threshold": THRESHOLD, "b": 16, "r": 8,
            "hash_func": "xxh3", "num_proc": 2,
        }  # fmt: skip
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        subprocess.run([sys.executable, "-m", "text_dedup.minhash", *arguments], check=True)
        kept = set(load_from_disk(f"{folder}/kept")["row"])
        yield from (row for row, _ in read_texts(source) if row not in kept)


main(find_dropped_rows)
