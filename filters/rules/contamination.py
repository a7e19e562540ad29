"""Drops documents that share text with evaluation sets that the user names, and counts them by set.

The rule is that of GPT-3 (Brown et al. 2020, appendix C): 13 consecutive words, without case and punctuation, that also occur
in a row of a set. A shorter row is compared as a whole if it has at least eight words, the smallest N there. Two parts of that
rule are not used. GPT-3 cuts the shared words and 200 characters around them out of a document; here the whole sample is dropped.
GPT-3 ignores n-grams that occur in more than ten documents; here they count, since a teacher that repeats a test question eleven
times is no less contaminated.

All text is read: user, assistant and the rest, each separately. Does not detect paraphrases.

The sets are an index of word n-grams. A word is hashed to 64 bits, an n-gram to a 64-bit polynomial of its words' hashes (Karp
and Rabin 1987). The index needs 16 bytes per n-gram, sorted, and 8 per word of the sets. A match counts only if the hashes of
all its words agree, so a false match needs two words with the same hash (probability 3e-8 for a million different words).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.config.filters import ContaminationFilter, FilterConfig
from core.errors import RecipeProblem, UsageError
from core.project_files import find_referenced_file
from core.sample import RejectionReason
from core.storage.bounded_reading import check_parquet_file, check_regular_file
from filters.base import Document, DroppedDocument
from filters.text_normalization import normalize_words

WordHashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

MIN_ROW_WORDS = 8
"""A shorter row cannot be distinguished from a common phrase (the least N of Brown et al. 2020, appendix C)."""
HASH_BASE = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no power of it is zero modulo 2^64."""
MAX_NGRAM_ROWS = 10
"""An n-gram in more rows is part of a common template, and is excluded. GPT-3 excludes n-grams of more than ten training
documents instead.
"""


class EvaluationMatch(NamedTuple):
    """A row of a set, and the position of its words in a text."""

    file: str
    row: int
    """Number of the row from 1."""
    words: int
    """Number of words of the row."""
    shared: int
    """Number of words in shared n-grams."""
    start: int
    """Position and length in words of the first shared n-gram in the text."""
    length: int

    @property
    def coverage(self) -> float:
        return self.shared / self.words


class EvaluationRows(NamedTuple):
    """The rows of all sets, end to end."""

    files: tuple[str, ...]
    words: WordHashes
    starts: Ints
    """The start of each row in `words`, and the end of the last."""
    file_of: Ints
    number_of: Ints
    """Each row's number in its file, from 1."""


class EvaluationSetSize(NamedTuple):
    rows: int
    short: int
    """Rows that have too few words to be detected."""


class EvaluationSets:
    """Rows that can be looked up by the n-grams of a text."""

    def __init__(self, rows: EvaluationRows, ngram: int) -> None:
        self._rows = rows
        lengths, least = np.diff(rows.starts), min(ngram, MIN_ROW_WORDS)
        widths = np.minimum(lengths, ngram)
        # By width: sorted hashes of the n-grams of rows that are compared by that number of words, with their positions.
        self._tables: dict[int, tuple[WordHashes, Ints]] = {}
        for width in np.unique(widths[widths >= least]).tolist():
            hashed = hash_ngrams(rows.words, width)
            row_of = np.searchsorted(rows.starts, np.arange(len(hashed)), side="right") - 1
            inside = np.arange(len(hashed)) + width <= rows.starts[row_of + 1]
            places = np.flatnonzero(inside & (widths[row_of] == width))
            places = places[np.argsort(hashed[places], kind="stable")]
            _, which, counts = np.unique(hashed[places], return_inverse=True, return_counts=True)
            specific = places[counts[which] <= MAX_NGRAM_ROWS]
            self._tables[width] = hashed[specific], specific
        self.sizes = {
            name: EvaluationSetSize(
                int((rows.file_of == i).sum()), int(((rows.file_of == i) & (lengths < least)).sum())
            )
            for i, name in enumerate(rows.files)
        }

    def find_matches(self, words: Sequence[str]) -> list[EvaluationMatch]:
        """The rows that share an n-gram with `words`, in the order of the sets."""
        hashed, rows = hash_words(words), self._rows
        found: dict[int, tuple[set[int], int, int]] = {}
        for width, (keys, places) in self._tables.items():
            for at, place in self._find_shared_ngrams(hashed, width, keys, places):
                row = int(np.searchsorted(rows.starts, place, side="right") - 1)
                found.setdefault(row, (set(), at, width))[0].update(range(place, place + width))
        matches = []
        for row, (covered, start, length) in sorted(found.items()):
            count = int(rows.starts[row + 1] - rows.starts[row])
            file, number = rows.files[rows.file_of[row]], int(rows.number_of[row])
            matches.append(EvaluationMatch(file, number, count, len(covered), start, length))
        return matches

    def _find_shared_ngrams(
        self, hashed: WordHashes, width: int, keys: WordHashes, places: Ints
    ) -> Iterator[tuple[int, int]]:
        """Positions in the text and in the rows of equal n-grams of `width` words."""
        grams = hash_ngrams(hashed, width)
        low, high = np.searchsorted(keys, grams, side="left"), np.searchsorted(keys, grams, side="right")
        for at in np.flatnonzero(low < high):
            for place in places[low[at] : high[at]]:
                if (self._rows.words[place : place + width] == hashed[at : at + width]).all():
                    yield int(at), int(place)


def hash_words(words: Sequence[str]) -> WordHashes:
    """BLAKE2b with 64 bits per word: the same on every machine."""
    return np.frombuffer(b"".join(_hash_word(word) for word in words), dtype="<u8").astype(np.uint64)


@lru_cache(maxsize=2**16)
def _hash_word(word: str) -> bytes:
    return hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest()


def hash_ngrams(words: WordHashes, width: int) -> WordHashes:
    """A hash of every `width` consecutive words: the sum of word hashes times powers of the base, modulo 2^64."""
    count = len(words) - width + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for i in range(width):
        total = total * HASH_BASE + words[i : i + count]
    return total


def read_evaluation_sets(files: Sequence[tuple[str, Path]], columns: Sequence[str], ngram: int) -> EvaluationSets:
    """The sets in `files`, each with its name in reports.

    Raises:
        UsageError: naming a file that cannot be read, or has none of the columns.
    """
    stamped = []
    for name, path in files:
        try:
            stat = path.stat()
        except OSError as error:
            raise UsageError(f"{path}: the evaluation set cannot be read: {error.strerror}") from None
        stamped.append((name, path, (stat.st_mtime_ns, stat.st_size)))
    return _read_cached_sets(tuple(stamped), tuple(columns), ngram)


@lru_cache(maxsize=2)
def _read_cached_sets(
    files: tuple[tuple[str, Path, object], ...], columns: tuple[str, ...], ngram: int
) -> EvaluationSets:
    words: list[WordHashes] = []
    file_of: list[int] = []
    numbers: list[int] = []
    for i, (_, path, _) in enumerate(files):
        for number, text in enumerate(read_evaluation_texts(path, columns), start=1):
            words.append(hash_words(normalize_words(text)))
            file_of.append(i)
            numbers.append(number)
    starts = np.cumsum([0, *map(len, words)], dtype=np.int64)
    names = tuple(name for name, *_ in files)
    joined = np.concatenate(words) if words else np.empty(0, dtype=np.uint64)
    return EvaluationSets(EvaluationRows(names, joined, starts, np.array(file_of, int), np.array(numbers, int)), ngram)


def read_evaluation_texts(path: Path, columns: Sequence[str]) -> list[str]:
    """The text of each row in the columns that the set has; the lines of a text file.

    Raises:
        UsageError: if the file cannot be read or has none of the columns.
    """
    try:
        check_regular_file(path)
        if path.suffix == ".txt":
            *lines, rest = path.read_text(encoding="utf-8-sig").split("\n")
            return [line.rstrip("\r") for line in (*lines, *([rest] if rest else []))]
        rows = _read_evaluation_rows(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as an evaluation set: {error}") from None
    if rows and not any(column in row for row in rows for column in columns):
        actual, wanted = ", ".join(rows[0]), ", ".join(columns)
        raise UsageError(f"{path}: has the columns {actual}, none of {wanted}; name the right ones in `columns`")
    return ["\n".join(_extract_text(row.get(column)) for column in columns if column in row) for row in rows]


def _read_evaluation_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        check_parquet_file(path)
        try:
            return list(pq.read_table(path).to_pylist())
        except pa.ArrowException as error:
            raise ValueError(str(error)) from None
    if path.suffix not in (".jsonl", ".json"):
        raise ValueError("its name must end in .jsonl, .json, .parquet or .txt")
    text = path.read_text(encoding="utf-8-sig")
    rows = (
        json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.split("\n") if line.strip()]
    )
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("each row must be a JSON object")
    return rows


def _extract_text(value: Any) -> str:
    """The text of a cell; the joined texts of a list of messages or texts."""
    if isinstance(value, list):
        return "\n".join(map(_extract_text, value))
    if isinstance(value, dict):
        return _extract_text(value.get("content", value.get("value")))
    return value if isinstance(value, str) else ""


class EvaluationSetReport(NamedTuple):
    """Contamination by one evaluation set."""

    rows: int
    short: int
    """Rows that have too few words to be detected."""
    found: int
    """Rows that share text with a document."""
    documents: int
    """Documents that share text with a row."""


def drop_contaminated(
    documents: Sequence[Document], config: ContaminationFilter, folder: Path = Path()
) -> list[DroppedDocument]:
    """Drop each document that shares an n-gram with a row of a set, and name the row with the largest overlap.

    Relative paths start from `folder`.

    Raises:
        UsageError: naming a set that cannot be read.
    """
    sets = _load_evaluation_sets(config, folder)
    drops = []
    for document in documents:
        matches: list[tuple[EvaluationMatch, str]] = []
        for part in document.parts:
            words = normalize_words(part)
            matches += [
                (match, " ".join(words[match.start : match.start + match.length]))
                for match in sets.find_matches(words)
                if match.coverage >= config.coverage
            ]
        if not matches:
            continue
        match, shared = max(matches, key=lambda pair: pair[0].coverage)
        rows = tuple(dict.fromkeys(f"{other.file}:{other.row}" for other, _ in matches))
        more = f"; and with {len(rows) - 1} more rows" if len(rows) > 1 else ""
        drops.append(
            DroppedDocument(
                id=document.id,
                filter=config.type,
                reason=RejectionReason.contamination,
                score=match.coverage,
                overlaps=rows,
                detail=f"shares {match.shared} of {match.words} words with {match.file} row {match.row}: {shared!r}{more}",
            )
        )
    return drops


def _load_evaluation_sets(config: ContaminationFilter, folder: Path) -> EvaluationSets:
    """Raises UsageError naming a set that cannot be read."""
    files = [(name, find_referenced_file(name, folder)) for name in config.sets]
    return read_evaluation_sets(files, config.columns, config.ngram)


def find_evaluation_set_problems(config: ContaminationFilter, folder: Path) -> Iterator[RecipeProblem]:
    """Yield a problem if the table names a set that cannot be read."""
    try:
        _load_evaluation_sets(config, folder)
    except UsageError as error:
        yield RecipeProblem("sets", str(error))


def _build_set_reports(
    drops: Sequence[DroppedDocument], config: ContaminationFilter, folder: Path = Path()
) -> dict[str, EvaluationSetReport]:
    """The report of each evaluation set of the filter, by its name in the recipe."""
    rows = [row for drop in drops for row in drop.overlaps]
    sizes = _load_evaluation_sets(config, folder).sizes
    by_set = {name: [row for row in rows if row.rpartition(":")[0] == name] for name in sizes}
    documents = Counter(name for drop in drops for name in {row.rpartition(":")[0] for row in drop.overlaps})
    return {
        name: EvaluationSetReport(size.rows, size.short, len(set(by_set[name])), documents[name])
        for name, size in sizes.items()
    }


def build_all_set_reports(
    drops: Sequence[DroppedDocument], configs: Sequence[FilterConfig], folder: Path = Path()
) -> dict[str, dict[str, int]]:
    """The reports of all evaluation sets that the filters name, as JSON values."""
    return {
        name: report._asdict()
        for config in configs
        if isinstance(config, ContaminationFilter)
        for name, report in _build_set_reports(drops, config, folder).items()
    }
