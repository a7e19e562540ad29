"""Filters in their order over any number of documents, in two steps: `judge` asks what can be said of each document by
itself, batch by batch, anywhere; `decide` then finds which documents repeat which, and needs no text for it.

The outcome is that of running each filter on what the earlier ones kept: a verdict on one document does not depend on
others, and a filter that compares documents gets no sketch of those which were dropped before.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.filter_config import DuplicateFilter, FilterConfig, KeepOneFilter, MinHashFilter
from filters.arrays import Places, Ragged, Repeats, Scores, offsets
from filters.base import Document, Drop, FilterResult, Mask, Masked, RowFilter, SetFilter
from filters.boilerplate import drop_boilerplate
from filters.contamination import drop_contaminated
from filters.exact import EXACT
from filters.index import Index
from filters.language import drop_other_languages
from filters.length import drop_by_length
from filters.minhash import MINHASH, opened
from filters.novelty import NOVELTY
from filters.personal import mask_or_drop
from filters.quality import drop_low_quality
from filters.refusal import drop_refusals
from filters.repetition import drop_repetitive
from filters.semantic import SEMANTIC

ROW_FILTERS: dict[str, RowFilter] = {
    "length": drop_by_length,
    "refusal": drop_refusals,
    "boilerplate": drop_boilerplate,
    "repetition": drop_repetitive,
    "quality": drop_low_quality,
    "language": drop_other_languages,
    "contamination": drop_contaminated,
    "pii": mask_or_drop,
}
SET_FILTERS: dict[str, SetFilter] = {"exact": EXACT, "minhash": MINHASH, "novelty": NOVELTY, "semantic": SEMANTIC}


class Sketched(NamedTuple):
    """What a filter that compares documents knows of those which came to it."""

    places: Places
    """Which of all documents they are, in order."""
    sketches: Ragged
    worth: Scores
    """What the one to keep of several has most of; of equals, the first is kept."""


class Judged(NamedTuple):
    """Some documents, each by itself."""

    documents: int
    """How many."""
    drops: dict[int, tuple[int, Drop]]
    """By place: which filter dropped it, and why."""
    masks: dict[int, tuple[Mask, ...]]
    sketched: dict[int, Sketched]
    """By filter."""


class Repeat(NamedTuple):
    """A document that repeats one which stays."""

    step: int
    """Which filter says so."""
    original: int
    """Its place, or below 0 as in `Repeats`."""
    similarity: float


class Decisions(NamedTuple):
    repeats: dict[int, Repeat]
    """By place."""
    under: dict[int, Places]
    """By filter, as in `Repeats`."""


def judge(documents: Sequence[Document], configs: Sequence[FilterConfig], folder: Path = Path()) -> Judged:
    """Raises ValueError if two documents have the same id, and UsageError where a filter's file cannot be read."""
    if len({document.id for document in documents}) != len(documents):
        raise ValueError("documents must have different ids")
    place_of = {document.id: place for place, document in enumerate(documents)}
    judged = Judged(len(documents), {}, {}, {})
    standing = list(documents)
    for step, config in enumerate(configs):
        if config.type in SET_FILTERS:
            judged.sketched[step] = _sketched(standing, config, place_of)
        else:
            standing = _judged(standing, _row_filter(config, folder)(standing, config), step, place_of, judged)
    return judged


def _row_filter(config: FilterConfig, folder: Path) -> RowFilter:
    return partial(drop_contaminated, folder=folder) if config.type == "contamination" else ROW_FILTERS[config.type]


def _judged(
    standing: Sequence[Document], found: Sequence[Drop | Masked], step: int, place_of: Mapping[str, int], judged: Judged
) -> list[Document]:
    """Those left, after what a filter found is noted."""
    if not found:
        return list(standing)
    drops = {one.id: one for one in found if isinstance(one, Drop)}
    masks = {one.id: one.masks for one in found if isinstance(one, Masked)}
    judged.drops.update({place_of[name]: (step, drop) for name, drop in drops.items()})
    left = [
        document.masked(masks[document.id]) if document.id in masks else document
        for document in standing
        if document.id not in drops
    ]
    judged.masks.update({place_of[document.id]: document.masks for document in left if document.id in masks})
    return left


def _sketched(documents: Sequence[Document], config: FilterConfig, place_of: Mapping[str, int]) -> Sketched:
    whole = isinstance(config, DuplicateFilter) and config.of == "conversation"
    seen = [document.whole for document in documents] if whole else documents
    worth = _worth(config.keep if isinstance(config, KeepOneFilter) else "first")
    return Sketched(
        np.array([place_of[document.id] for document in documents], dtype=np.int64),
        SET_FILTERS[config.type].sketch(seen, config),
        np.array([worth(document) for document in seen], dtype=np.float64),
    )


def _worth(keep: str) -> Callable[[Document], float]:
    if keep == "longest":
        return lambda document: len(document.text)
    if keep == "best":
        return lambda document: -math.inf if document.score is None else _as_float(document.score)
    return lambda _: 0.0


def _as_float(score: float) -> float:
    """The furthest one where an integer lies beyond all."""
    try:
        return float(score)
    except OverflowError:
        return math.copysign(sys.float_info.max, 1 if score > 0 else -1)


def released(documents: Sequence[Document], configs: Sequence[FilterConfig]) -> Judged:
    """What was released before, to be joined before all others: nothing drops it, and it is kept before anything like it.

    Raises:
        ValueError: if two documents have the same id.
    """
    place_of = {document.id: place for place, document in enumerate(documents)}
    if len(place_of) != len(documents):
        raise ValueError("documents must have different ids")
    found = Judged(len(documents), {}, {}, {})
    for step, config in enumerate(configs):
        if config.type in SET_FILTERS:
            one = _sketched(documents, config, place_of)
            found.sketched[step] = one._replace(worth=np.full(len(documents), np.inf))
    return found


def joined(parts: Sequence[Judged]) -> Judged:
    """Batches that follow one another, as one."""
    before = offsets(np.array([part.documents for part in parts], dtype=np.int64)).tolist()
    whole = Judged(before[-1], {}, {}, {})
    for first, part in zip(before, parts, strict=False):
        whole.drops.update({first + place: drop for place, drop in part.drops.items()})
        whole.masks.update({first + place: masks for place, masks in part.masks.items()})
    for step in parts[0].sketched if parts else ():
        some = [part.sketched[step] for part in parts]
        sketches = Ragged(
            np.concatenate([one.sketches.values for one in some]),
            offsets(np.concatenate([one.sketches.sizes for one in some])),
        )
        places = np.concatenate([first + one.places for first, one in zip(before, some, strict=False)])
        whole.sketched[step] = Sketched(places, sketches, np.concatenate([one.worth for one in some]))
    return whole


Compare = Callable[[Ragged, Places, FilterConfig, Path], Repeats]
"""Compares those at some places, in that order."""


def decide(
    judged: Judged,
    configs: Sequence[FilterConfig],
    folder: Path = Path(),
    among: Places | None = None,
    compare: Mapping[str, Compare] = {},
) -> Decisions:
    """Which documents repeat others, by place; of all, or of those `among` which alone count. `compare` says by what a type of
    filter compares, if not by its own way.
    """
    out = np.zeros(judged.documents, dtype=np.bool_)
    if among is not None:
        out[:] = True
        out[among] = False
    found = Decisions({}, {})
    for step, sketched in judged.sketched.items():
        standing = np.flatnonzero(~out[sketched.places])
        order = standing[np.argsort(-sketched.worth[standing], kind="stable")]
        config = configs[step]
        repeats = compare.get(config.type, _compare_here)(sketched.sketches, order, config, folder)
        places = sketched.places[order]
        repeated = places[repeats.repeated]
        own = repeats.original >= 0
        original = np.where(own, places[np.where(own, repeats.original, 0)], repeats.original)
        out[repeated] = True
        columns = (repeated.tolist(), original.tolist(), repeats.similarity.tolist())
        found.repeats.update({place: Repeat(step, *of) for place, *of in zip(*columns, strict=True)})
        found.under[step] = repeats.under
    return found


def _compare_here(sketches: Ragged, places: Places, config: FilterConfig, folder: Path) -> Repeats:
    all_in_order = places.size == sketches.sizes.size and (np.diff(places) == 1).all()
    return SET_FILTERS[config.type].compare(sketches if all_in_order else sketches.only(places), config, folder)


def drops_of(
    judged: Judged, decisions: Decisions, configs: Sequence[FilterConfig], folder: Path, names: Sequence[str]
) -> dict[int, Drop]:
    """Why each document that is not kept went, by place: by the first filter that dropped it. `names` are ids, by place."""
    drops = {place: drop for place, (_, drop) in judged.drops.items()}
    name_in_index = names_in_indexes(configs, folder)
    for place, repeat in decisions.repeats.items():
        if place not in judged.drops or repeat.step < judged.drops[place][0]:
            original = names[repeat.original] if repeat.original >= 0 else name_in_index(repeat)
            drops[place] = drop_of(names[place], repeat, configs[repeat.step], original)
    return drops


def names_in_indexes(configs: Sequence[FilterConfig], folder: Path) -> Callable[[Repeat], str]:
    """What the index of a repeat's filter calls its `original` below 0. Each index is opened once, when it is first asked."""

    @cache
    def index(step: int) -> Index:
        config = configs[step]
        assert isinstance(config, MinHashFilter)
        return opened(config, folder)

    return lambda repeat: index(repeat.step).label(-1 - repeat.original)


def drop_of(name: str, repeat: Repeat, config: FilterConfig, original: str) -> Drop:
    """That `name` repeats `original`."""
    kind = SET_FILTERS[config.type]
    return Drop(
        id=name,
        filter=config.type,
        reason=kind.reason,
        score=repeat.similarity,
        duplicate_of=original,
        detail=kind.detail(config, repeat.similarity, original),
    )


def apply_filters(
    documents: Sequence[Document], configs: Sequence[FilterConfig], folder: Path = Path()
) -> FilterResult:
    """Run the filters in order, each on what the earlier ones kept; every document is kept or dropped, never both.

    What a filter masks stays masked for the later ones, and `masks` of a kept document say what was masked. Relative
    paths of the filters start from `folder`.

    Raises:
        ValueError: if two documents have the same id, since a drop could then not be told from the other.
    """
    judged = judge(documents, configs, folder)
    drops = drops_of(judged, decide(judged, configs, folder), configs, folder, [document.id for document in documents])
    kept = [
        document.masked(judged.masks[place]) if place in judged.masks else document
        for place, document in enumerate(documents)
        if place not in drops
    ]
    return FilterResult(kept, [drops[place] for place in sorted(drops)])
