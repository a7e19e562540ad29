"""Make `english.jsonl` again: short passages of narration from the novels in Debian's `r-cran-janeaustenr`.

    apt-get download r-cran-janeaustenr && dpkg -x r-cran-janeaustenr_*.deb unpacked
    python data/reference/make.py unpacked data/reference/english.jsonl

Knows the one file format it reads (R's lazy-load database) only as far as this package uses it.
"""

import json
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

DATABASE = Path("usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
PASSAGES = 4400
"""Enough for four disjoint draws of 1,100 documents, just above where loss of rare words begins to be visible."""
MIN_WORDS, MAX_WORDS, MAX_SENTENCES = 10, 40, 3
SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])\s+(?=[A-Z])")
UNWANTED = re.compile(r"[\[\]_*]|--|\d|\b[A-Z]{2,}|Chapter")
"""Editorial marks, emphasis, dashes (which also stand for names), headings: a sentence with one ends a passage."""


def novels(database: bytes) -> Iterator[str]:
    """Each novel: a zlib stream that holds one R character vector, a line of the book an element."""
    while database:
        stream = zlib.decompressobj()
        data = stream.decompress(database[4:])  # the first four bytes are the length
        yield "\n".join(_strings(data))
        database = stream.unused_data


def _strings(data: bytes) -> Iterator[str]:
    at = data.index(b"UTF-8") + len(b"UTF-8")
    flags, count = struct.unpack_from(">II", data, at)
    if flags & 255 != 16:
        raise ValueError(f"R type {flags & 255} where a character vector (16) was expected")
    at += 8
    for _ in range(count):
        (length,) = struct.unpack_from(">i", data, at + 4)
        yield data[at + 8 : at + 8 + length].decode()
        at += 8 + length


def passages(novel: str) -> Iterator[str]:
    """One to three whole sentences of 10 to 40 words from each paragraph of narration, as many as it gives."""
    for paragraph in re.split(r"\n\s*\n", novel):
        if '"' in paragraph:  # dialogue
            continue
        held: list[str] = []
        for sentence in SENTENCE_END.split(" ".join(paragraph.split())):
            unwanted = bool(UNWANTED.search(sentence))
            if unwanted or len(held) == MAX_SENTENCES or _words([*held, sentence]) > MAX_WORDS:
                yield from _whole(held)
                held = []
            if not unwanted:
                held.append(sentence)
        yield from _whole(held)


def _words(sentences: list[str]) -> int:
    return len(" ".join(sentences).split())


def _whole(sentences: list[str]) -> list[str]:
    text = " ".join(sentences)
    good = MIN_WORDS <= _words(sentences) <= MAX_WORDS and text[0].isupper() and text[-1] in ".!?"
    return [text] if good else []


def spread(items: list[str], count: int) -> list[str]:
    """`count` of the items, evenly spaced, so that every part of every novel is there."""
    return [items[i * len(items) // count] for i in range(min(count, len(items)))]


def main(unpacked: str, out: str) -> None:
    books = novels((Path(unpacked) / DATABASE).read_bytes())
    found = list(dict.fromkeys(passage for novel in books for passage in passages(novel)))
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in spread(found, PASSAGES)]
    Path(out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(lines)} of {len(found)} passages\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
