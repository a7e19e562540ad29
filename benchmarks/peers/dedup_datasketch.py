"""datasketch: `MinHash.bulk` and `MinHashLSH` with its own choice of bands; a text goes if the index holds a like one."""

from collections.abc import Iterator
from pathlib import Path

from datasketch import MinHash, MinHashLSH

from benchmarks.peers.dedup_work import THRESHOLD, main, shingles, texts


def dropped(source: Path) -> Iterator[int]:
    rows, documents = zip(*texts(source), strict=True)
    shingled = ([shingle.encode() for shingle in shingles(text)] for text in documents)
    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    for row, sketch in zip(rows, MinHash.bulk(shingled, num_perm=128), strict=True):
        if index.query(sketch):
            yield row
        else:
            index.insert(row, sketch, check_duplication=False)


main(dropped)
