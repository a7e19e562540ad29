"""Subsets of documents: one that covers most items, and random ones to compare it with. Knows items only, features or words."""

import heapq

import numpy as np
import numpy.typing as npt

from filters.ragged_arrays import RaggedArray

Ints = npt.NDArray[np.int64]

REPEAT_WORTH = 1e-3


def cover_greedily(items: RaggedArray, size: int, most: int) -> Ints:
    """Places of `most` documents, in the order of choice: each adds most items that no chosen document has. Covered items count
    `REPEAT_WORTH` for each time, so that rarely covered ones come first where nothing is new. The gain only falls, so it is
    computed again only when a document comes first (Minoux 1978).

    Args:
        items: the different items of each document.
        size: items are below this number.
        most: documents to choose.
    """
    worth = np.ones(size)
    heap = [(-float(count), place) for place, count in enumerate(items.sizes)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < most:
        before, place = heapq.heappop(heap)
        mine = items.row(place)
        gain = float(worth[mine].sum())
        if heap and -gain > heap[0][0] and gain < -before:
            heapq.heappush(heap, (-gain, place))
            continue
        chosen.append(place)
        worth[mine] *= REPEAT_WORTH
    return np.array(chosen, dtype=np.int64)


def match_random_lengths(lengths: Ints, chosen: Ints, random: np.random.Generator) -> Ints:
    """As many random documents with the lengths of the chosen ones: for each, one of nearest length that is not taken yet."""
    order = random.permutation(lengths.size)
    order = order[np.argsort(lengths[order], kind="stable")]
    ordered = lengths[order]
    free = np.ones(lengths.size, dtype=bool)
    taken = []
    for length in np.sort(lengths[chosen])[::-1]:
        places = np.flatnonzero(free)
        nearest = places[np.abs(ordered[places] - length) == np.abs(ordered[places] - length).min()]
        pick = int(random.choice(nearest))
        free[pick] = False
        taken.append(int(order[pick]))
    return np.array(taken, dtype=np.int64)


def count_covered(items: RaggedArray, places: Ints) -> int:
    """Different items in the documents at `places`."""
    return int(np.unique(items.take_rows(places).values).size)
