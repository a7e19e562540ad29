"""Where real text itself varies: the comparisons of `families`, between disjoint draws of the reference alone.

Computed once per reference and size, and kept on disk. Nothing is drawn with replacement: repeated documents alone move
the Heaps slope by 51 standard errors. Knows nothing of any candidate.
"""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.store import read_json, write_json
from filters.diversity import Shown
from filters.draws import Corpus, equal_lengths
from filters.families import NAMES, Measured, Surprises, compare, measured, surprise
from filters.reference import Reference

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

VERSION = 4
COMPARISONS = 60
"""Of real text with real text. The deviation that they give is then within 18 %, 19 times in 20."""
MOST_PARTS = 12
FEWEST_SHOWN = 6
DRAWS = 3
"""In one comparison: one stands for the candidate, two for the reference."""
LARGEST = 10_000
STEP = math.sqrt(2)
"""Sizes are LARGEST over powers of this, so that one null serves all candidates of about a size."""


class Null(NamedTuple):
    documents: int
    tokens: int
    differences: Floats
    """Comparisons by METRICS."""
    shown: dict[str, float]
    """The deviations of single draws in the numbers that do not gate."""

    def deviations(self, tokens: int) -> Floats:
        """Of each metric at `tokens` tokens a draw, from those at this size by the square root of their ratio."""
        found: Floats = self.differences.std(axis=0, ddof=1)
        return found * math.sqrt(self.tokens / tokens)


def null_size(documents: int, reference: int) -> int:
    """The size of null for a candidate of `documents`: the nearest of the steps of which the reference holds three draws."""
    wanted = min(documents, LARGEST)
    step = round(math.log(LARGEST / wanted, STEP))
    while (size := round(LARGEST / STEP**step)) * DRAWS > reference:
        step += 1
    return size


def null_of(reference: Reference, size: int, cache: Path | None) -> Null:
    """Compute the null, or read it from `cache`."""
    path = cache / f"{size}-{_key(reference.corpus)}.json" if cache else None
    if path and path.exists():
        found = read_json(path)
        return Null(found["documents"], found["tokens"], np.array(found["differences"]), found["shown"])
    null = compute_null(reference, size)
    if path:
        write_json(path, {"metrics": NAMES, **null._asdict(), "differences": null.differences.tolist()})
    return null


def _key(reference: Corpus) -> str:
    """Of the reference's content: words are numbered as they come, so equal texts have equal numbers."""
    digest = hashlib.sha256(f"{VERSION} {COMPARISONS}".encode())
    digest.update(reference.ids.tobytes())
    digest.update(reference.lengths.tobytes())
    return digest.hexdigest()[:16]


def compute_null(reference: Reference, size: int, comparisons: int = COMPARISONS, seed: int = 0) -> Null:
    """Part the reference into disjoint draws, again and again; in each parting every draw is once the candidate."""
    random = np.random.default_rng(seed)
    corpus, background = reference.corpus, reference.background()
    parts = min(len(corpus) // size, MOST_PARTS)
    rows: list[Floats] = []
    tokens, singles = [], list[Shown]()
    while len(rows) < comparisons:
        order = random.permutation(len(corpus))
        places = [order[k * size : (k + 1) * size] for k in range(parts)]
        lengths = equal_lengths([corpus.lengths[one] for one in places])
        draws = [corpus.draw(*pair) for pair in zip(places, lengths, strict=True)]
        apart = [corpus.counts(one, len(background.counts)) for one in places]
        rows += _in_turn([measured(draw, background, out) for draw, out in zip(draws, apart, strict=True)])
        tokens.append(draws[0].tokens)
        if len(singles) < FEWEST_SHOWN:
            singles += [reference.shown(draw) for draw in draws]
    return Null(size, int(np.mean(tokens)), np.stack(rows[:comparisons]), _spread(singles))


def _in_turn(draws: list[Measured]) -> list[Floats]:
    """Each draw set beside the two after it; every model is asked about its neighbours only."""
    count = len(draws)
    after = [surprise(draws[(k + 1) % count], draws[k]) for k in range(count)]
    before = [surprise(draws[k - 1], draws[k]) for k in range(count)]
    rows = []
    for k in range(count):
        first, second = (k + 1) % count, (k + 2) % count
        nats = Surprises(after[k], before[second], float(before[first].mean()), float(after[first].mean()))
        rows.append(compare(draws[k], draws[first], draws[second], nats).difference)
    return rows


def _spread(singles: list[Shown]) -> dict[str, float]:
    columns = {name: [getattr(one, name) for one in singles] for name in Shown._fields}
    return {name: float(np.std(values, ddof=1)) for name, values in columns.items() if None not in values}
