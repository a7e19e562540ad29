"""What every near-duplicate peer is given and gives back: JSON lines with `row` and `text` in, a JSON list of the rows that it
drops out. All see word 5-grams of the same normalised text, and 0.8 as threshold.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

NGRAM = 5
THRESHOLD = 0.8


def texts(file: Path) -> Iterator[tuple[int, str]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            yield document["row"], document["text"]


def shingles(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))]


def main(dropped: Callable[[Path], Iterable[int]]) -> None:
    """Run `dropped` on the file that the command line names, and write what it gives to the second one."""
    source, out = map(Path, sys.argv[1:])
    out.write_text(json.dumps(list(dropped(source))), encoding="utf-8")
