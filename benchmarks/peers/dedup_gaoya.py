"""gaoya: `MinHashStringIndex`, 16 bands of 8 rows, which builds its own shingles."""

from collections.abc import Iterator
from pathlib import Path

from gaoya.minhash import MinHashStringIndex

from benchmarks.peers.dedup_work import NGRAM, THRESHOLD, main, read_texts


def find_dropped_rows(source: Path) -> Iterator[int]:
    index = MinHashStringIndex(32, THRESHOLD, 16, 8, None, "word", False, (NGRAM, NGRAM))
    for row, text in read_texts(source):
        if index.query(text):
            yield row
        else:
            index.insert_document(row, text)


main(find_dropped_rows)
