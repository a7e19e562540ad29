"""The contract of every near-duplicate peer: JSON lines with `row` and `text` in, a JSON list of dropped rows out. All use word
5-grams of the same normalized text and a threshold of 0.8.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

NGRAM = 5
THRESHOLD = 0.8


def read_texts(file: Path) -> Iterator[tuple[int, str]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            yield document["row"], document["text"]


def split_into_shingles(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))]


def main(dropped: Callable[[Path], Iterable[int]]) -> None:
    """Run `dropped` on the first file of the command line, and write its rows to the second file."""
    source, out = map(Path, sys.argv[1:])
    out.write_text(json.dumps(list(dropped(source))), encoding="utf-8")
