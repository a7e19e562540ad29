"""datasketch: `MinHash.bulk` and `MinHashLSH` with its own choice of bands; a text is dropped if the index contains a similar
one.
"""

from collections.abc import Iterator
from pathlib import Path

from datasketch import MinHash, MinHashLSH

from benchmarks.peers.dedup_work import THRESHOLD, main, read_texts, split_into_shingles


def find_dropped_rows(source: Path) -> Iterator[int]:
    rows, documents = zip(*read_texts(source), strict=True)
    shingled = ([shingle.encode() for shingle in split_into_shingles(text)] for text in documents)
    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    for row, sketch in zip(rows, MinHash.bulk(shingled, num_perm=128), strict=True):
        if index.query(sketch):
            yield row
        else:
            index.insert(row, sketch, check_duplication=False)


main(find_dropped_rows)
