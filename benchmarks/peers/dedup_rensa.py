"""rensa: `RMinHashDeduplicator`, 16 bands, fed from a generator."""

from collections.abc import Iterator
from pathlib import Path

from rensa import RMinHashDeduplicator

from benchmarks.peers.dedup_work import THRESHOLD, main, shingles, texts


def dropped(source: Path) -> Iterator[int]:
    deduplicator = RMinHashDeduplicator(THRESHOLD, 128, True, 16)
    added = deduplicator.add_pairs((str(row), shingles(text)) for row, text in texts(source))
    return (row for row, one in enumerate(added) if not one)


main(dropped)
