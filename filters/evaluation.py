"""Evaluation sets as an index of word n-grams: which rows share so many words in a row with a text.

A word is hashed to 64 bits, an n-gram to a 64-bit polynomial of its words' hashes (Karp and Rabin 1987). The index holds 16
bytes an n-gram, sorted, and 8 a word of the sets; a match counts only when the hashes of all its words agree too, so nothing
is found that is not there but by two words with one hash (for a million different words, a chance of 3e-8).

Knows no document and no recipe.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import UsageError
from filters.text import normalised_words

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

LEAST_WORDS = 8
"""A shorter row cannot be told from a common phrase (the least N of Brown et al. 2020, appendix C)."""
BASE = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no power of it is zero modulo 2^64."""
TEMPLATE_ROWS = 10
"""An n-gram that occurs more often in the sets is how their rows begin, not what one of them says, and is left out. GPT-3
does the same by the other side: it overlooks n-grams that more than ten training documents have."""


class Match(NamedTuple):
    """A row of a set, and where a text has its words."""

    file: str
    row: int
    """From 1."""
    words: int
    """Of the row."""
    shared: int
    """How many of them stand in shared n-grams."""
    start: int
    """The first shared n-gram's first word in the text, and how many words it has."""
    length: int

    @property
    def coverage(self) -> float:
        return self.shared / self.words


class Rows(NamedTuple):
    """The rows of all sets, end to end."""

    files: tuple[str, ...]
    words: Hashes
    starts: Ints
    """Where each row begins in `words`, and the end."""
    file_of: Ints
    number_of: Ints
    """Each row's number in its file, from 1."""


class SetSize(NamedTuple):
    rows: int
    short: int
    """Rows of too few words to be found."""


class EvaluationSets:
    """Rows that can be looked up by the n-grams of a text."""

    def __init__(self, rows: Rows, ngram: int) -> None:
        self._rows = rows
        lengths, least = np.diff(rows.starts), min(ngram, LEAST_WORDS)
        self._widths = np.minimum(lengths, ngram)
        self._tables = {int(width): self._table(int(width)) for width in np.unique(self._widths) if width >= least}
        self.sizes = {
            name: SetSize(int((rows.file_of == i).sum()), int(((rows.file_of == i) & (lengths < least)).sum()))
            for i, name in enumerate(rows.files)
        }

    def _table(self, width: int) -> tuple[Hashes, Ints]:
        """Hashes of the n-grams of rows compared by `width` words, sorted, with where each begins."""
        hashed = ngram_hashes(self._rows.words, width)
        row_of = np.searchsorted(self._rows.starts, np.arange(len(hashed)), side="right") - 1
        inside = np.arange(len(hashed)) + width <= self._rows.starts[row_of + 1]
        places = np.flatnonzero(inside & (self._widths[row_of] == width))
        places = places[np.argsort(hashed[places], kind="stable")]
        _, which, counts = np.unique(hashed[places], return_inverse=True, return_counts=True)
        telling = places[counts[which] <= TEMPLATE_ROWS]
        return hashed[telling], telling

    def matches(self, words: Sequence[str]) -> list[Match]:
        """The rows that share an n-gram with `words`, in the order of the sets."""
        hashed = word_hashes(words)
        found: dict[int, tuple[set[int], int, int]] = {}
        for width, (keys, places) in self._tables.items():
            for at, place in self._pairs(hashed, width, keys, places):
                row = int(np.searchsorted(self._rows.starts, place, side="right") - 1)
                found.setdefault(row, (set(), at, width))[0].update(range(place, place + width))
        return [self._match(row, *found[row]) for row in sorted(found)]

    def _pairs(self, hashed: Hashes, width: int, keys: Hashes, places: Ints) -> Iterator[tuple[int, int]]:
        """Where `width` words of a text are words of a row: the place in the text, and that in the rows."""
        grams = ngram_hashes(hashed, width)
        low, high = np.searchsorted(keys, grams, side="left"), np.searchsorted(keys, grams, side="right")
        for at in np.flatnonzero(low < high):
            for place in places[low[at] : high[at]]:
                if (self._rows.words[place : place + width] == hashed[at : at + width]).all():
                    yield int(at), int(place)

    def _match(self, row: int, covered: set[int], start: int, length: int) -> Match:
        rows = self._rows
        words = int(rows.starts[row + 1] - rows.starts[row])
        file = rows.files[rows.file_of[row]]
        return Match(file, int(rows.number_of[row]), words, len(covered), start, length)


def word_hashes(words: Sequence[str]) -> Hashes:
    """BLAKE2b, 64 bits a word: the same on every machine."""
    return np.frombuffer(b"".join(_word_hash(word) for word in words), dtype="<u8").astype(np.uint64)


@lru_cache(maxsize=2**16)
def _word_hash(word: str) -> bytes:
    return hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest()


def ngram_hashes(words: Hashes, width: int) -> Hashes:
    """Of every `width` words in a row: the sum of hash times base to the power of its place, modulo 2^64."""
    count = len(words) - width + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for i in range(width):
        total = total * BASE + words[i : i + count]
    return total


def read_sets(files: Sequence[tuple[str, Path]], columns: Sequence[str], ngram: int) -> EvaluationSets:
    """The sets in `files`, each under the name that reports have for it.

    Raises:
        UsageError: naming a file that cannot be read, or has none of the columns.
    """
    stamps = tuple((name, path, _stamp(path)) for name, path in files)
    return _read_sets(stamps, tuple(columns), ngram)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: the evaluation set cannot be read: {error.strerror}") from None
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=2)
def _read_sets(files: tuple[tuple[str, Path, object], ...], columns: tuple[str, ...], ngram: int) -> EvaluationSets:
    words: list[Hashes] = []
    file_of: list[int] = []
    numbers: list[int] = []
    for i, (_, path, _) in enumerate(files):
        for number, text in enumerate(texts_of(path, columns), start=1):
            words.append(word_hashes(normalised_words(text)))
            file_of.append(i)
            numbers.append(number)
    starts = np.cumsum([0, *map(len, words)], dtype=np.int64)
    names = tuple(name for name, *_ in files)
    joined = np.concatenate(words) if words else np.empty(0, dtype=np.uint64)
    return EvaluationSets(Rows(names, joined, starts, np.array(file_of, int), np.array(numbers, int)), ngram)


def texts_of(path: Path, columns: Sequence[str]) -> list[str]:
    """What each row of a set says in the columns that it has; of a text file, each line.

    Raises:
        UsageError: naming the columns that are there.
    """
    try:
        if path.suffix == ".txt":
            *lines, rest = path.read_text(encoding="utf-8-sig").split("\n")
            return [line.rstrip("\r") for line in (*lines, *([rest] if rest else []))]
        rows = _rows(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as an evaluation set: {error}") from None
    if rows and not any(column in row for row in rows for column in columns):
        there, wanted = ", ".join(rows[0]), ", ".join(columns)
        raise UsageError(f"{path}: has the columns {there}, none of {wanted}; name the right ones in `columns`")
    return ["\n".join(_said(row.get(column)) for column in columns if column in row) for row in rows]


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import polars as pl

        try:
            return pl.read_parquet(path).to_dicts()
        except pl.exceptions.PolarsError as error:
            raise ValueError(str(error)) from None
    if path.suffix not in (".jsonl", ".json"):
        raise ValueError("its name must end in .jsonl, .json, .parquet or .txt")
    text = path.read_text(encoding="utf-8-sig")
    rows = json.loads(text) if path.suffix == ".json" else [json.loads(one) for one in text.split("\n") if one.strip()]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("each row must be a JSON object")
    return rows


def _said(value: Any) -> str:
    """The text in a cell: of a list of messages or of texts, one after the other."""
    if isinstance(value, list):
        return "\n".join(map(_said, value))
    if isinstance(value, dict):
        return _said(value.get("content", value.get("value")))
    return value if isinstance(value, str) else ""
