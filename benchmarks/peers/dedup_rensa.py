"""rensa: `RMinHashDeduplicator`, 16 bands, fed from a generator."""

from collections.abc import Iterator
from pathlib import Path

from rensa import RMinHashDeduplicator

from benchmarks.peers.dedup_work import THRESHOLD, main, read_texts, split_into_shingles


def find_dropped_rows(source: Path) -> Iterator[int]:
    deduplicator = RMinHashDeduplicator(THRESHOLD, 128, True, 16)
    added = deduplicator.add_pairs((str(row), split_into_shingles(text)) for row, text in read_texts(source))
    return (row for row, one in enumerate(added) if not one)


main(find_dropped_rows)
