"""gaoya: `MinHashStringIndex`, 16 bands of 8 rows, which shingles by itself."""

from collections.abc import Iterator
from pathlib import Path

from gaoya.minhash import MinHashStringIndex

from benchmarks.peers.dedup_work import NGRAM, THRESHOLD, main, texts


def dropped(source: Path) -> Iterator[int]:
    index = MinHashStringIndex(32, THRESHOLD, 16, 8, None, "word", False, (NGRAM, NGRAM))
    for row, text in texts(source):
        if index.query(text):
            yield row
        else:
            index.insert_document(row, text)


main(dropped)
