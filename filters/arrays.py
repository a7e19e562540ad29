"""What filters that compare documents work on: values of many documents end to end, and who repeats whom. Knows no document."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


class Ragged(NamedTuple):
    """The values of many documents, one after the other: of each what a filter compares it by, such as its hashed shingles."""

    values: npt.NDArray[Any]
    starts: Places
    """Where each begins, and at last where the last one ends."""

    @property
    def sizes(self) -> Places:
        return np.diff(self.starts)

    def of(self, place: int) -> npt.NDArray[Any]:
        return self.values[self.starts[place] : self.starts[place + 1]]

    def between(self, first: int, last: int) -> "Ragged":
        """Those from `first` to before `last`, not copied."""
        start = self.starts[first]
        return Ragged(self.values[start : self.starts[last]], self.starts[first : last + 1] - start)

    def only(self, places: Places) -> "Ragged":
        """Those at `places`, in that order."""
        sizes = self.sizes[places]
        return Ragged(self.values[spans(self.starts[places], sizes)], offsets(sizes))


BINS = 50
NONE: Places = np.zeros(BINS, dtype=np.int64)


class Repeats(NamedTuple):
    """Those that repeat an earlier one which repeats none itself, in order."""

    repeated: Places
    original: Places
    """Below 0 where it is none of them, but of an index of earlier ones: -1 less its number there."""
    similarity: Scores
    """Of the two, in the unit of the threshold."""
    under: Places = NONE
    """How many pairs were compared exactly and are less alike than the threshold, by fiftieths of similarity from 0 on."""

    @classmethod
    def none(cls) -> "Repeats":
        return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))


def offsets(sizes: Places) -> Places:
    """0, and the sums of the first one, two, ... sizes."""
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)))


def spans(starts: Places, sizes: Places) -> Places:
    """The numbers from each start on, as many as its size says, one span after the other."""
    total = offsets(sizes)
    return np.repeat(starts - total[:-1], sizes) + np.arange(total[-1])
