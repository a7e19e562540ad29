"""Arrays of filters that compare documents: values of many documents end to end, and matches. Knows no document."""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
NumberType = TypeVar("NumberType", bound=np.generic)

ROWS_AT_ONCE = 4096
"""Rows in memory at once where a step needs more memory per row than its result."""


class RaggedArray(NamedTuple):
    """Values of many documents end to end, such as hashed shingles; a row per document."""

    values: npt.NDArray[Any]
    starts: Indices
    """The start of each row, and the end of the last."""

    @property
    def sizes(self) -> Indices:
        return np.diff(self.starts)

    def row(self, place: int) -> npt.NDArray[Any]:
        return self.values[self.starts[place] : self.starts[place + 1]]

    def slice_rows(self, first: int, last: int) -> "RaggedArray":
        """Rows `first` to `last` - 1, without copying."""
        start = self.starts[first]
        return RaggedArray(self.values[start : self.starts[last]], self.starts[first : last + 1] - start)

    def take_rows(self, places: Indices) -> "RaggedArray":
        """Copies of the rows at `places`, in that order."""
        starts = compute_offsets(self.sizes[places])
        values = np.empty(starts[-1], dtype=self.values.dtype)
        taken = RaggedArray(values, starts)
        for block, some in taken.split_rows():
            some.values[:] = self.values[expand_spans(self.starts[places[block]], some.sizes)]
        return taken

    def split_rows(self) -> Iterator[tuple[slice, "RaggedArray"]]:
        """Blocks of `ROWS_AT_ONCE` rows with their positions, without copying."""
        for first in range(0, self.starts.size - 1, ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, self.starts.size - 1)
            yield slice(first, last), self.slice_rows(first, last)


SIMILARITY_BINS = 50
EMPTY_HISTOGRAM: Indices = np.zeros(SIMILARITY_BINS, dtype=np.int64)


class DuplicateMatches(NamedTuple):
    """Documents that repeat an earlier kept document, in order."""

    repeated: Indices
    original: Indices
    """Position of the kept document; for a document of an index, -1 minus its number there."""
    similarity: Scores
    """In the unit of the threshold."""
    under: Indices = EMPTY_HISTOGRAM
    """Histogram of exactly compared pairs under the threshold, in bins of 1/50 of similarity."""

    @classmethod
    def empty(cls) -> "DuplicateMatches":
        return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))


def sort_unique(numbers: npt.NDArray[NumberType]) -> npt.NDArray[NumberType]:
    """Like `numpy.unique`, whose hash table is 20 times slower than sorting here."""
    numbers = np.sort(numbers)
    fresh = np.ones(numbers.size, dtype=np.bool_)
    fresh[1:] = numbers[1:] != numbers[:-1]
    return numbers[fresh]


def compute_offsets(sizes: Indices) -> Indices:
    """0, and the cumulative sums of the sizes."""
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)))


def expand_spans(starts: Indices, sizes: Indices) -> Indices:
    """The numbers of all spans [start, start + size), end to end."""
    total = compute_offsets(sizes)
    return np.repeat(starts - total[:-1], sizes) + np.arange(total[-1])
