"""Runs filters in order over any number of documents, in two steps. `apply_row_filters` decides on each document by itself, batch
by batch, on any process or machine. `find_duplicates` then finds which documents repeat others, from their sketches alone.

The result equals that of running each filter on what the earlier ones kept: a decision on one document does not depend on other
documents, and a filter that compares documents gets no sketch of documents that were dropped before it. Knows no row format and
no run directory.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.config.filters import DuplicateFilter, FilterConfig, KeepOneFilter, MinHashFilter
from filters.base import Document, DroppedDocument, FilterResult, MaskedDocument, SetFilter
from filters.chain.registry import find_filter_entry, find_set_filter, require_set_filter
from filters.duplicates.duplicate_index import DuplicateIndex
from filters.duplicates.set_filters import open_duplicate_index
from filters.masks import TextMask
from filters.ragged_arrays import DuplicateMatches, Indices, RaggedArray, Scores, compute_offsets


class DocumentSketches(NamedTuple):
    """The input of a filter that compares documents: those that earlier filters kept."""

    places: Indices
    """Positions among all documents, in order."""
    sketches: RaggedArray
    worth: Scores
    """The document with the highest value of a group is kept, the first among equals."""


class RowFilterResult(NamedTuple):
    """The result of `apply_row_filters` for a batch. Filters are numbered by their position in the recipe."""

    documents: int
    """Number of documents in the batch."""
    drops: dict[int, tuple[int, DroppedDocument]]
    """Number of the filter and its reason, by position of the document."""
    masks: dict[int, tuple[TextMask, ...]]
    """By position of the document."""
    sketched: dict[int, DocumentSketches]
    """By number of the filter."""
    unjudged: dict[int, int]
    """By number of the filter: documents in languages that it does not know, which it lets pass."""


class DuplicateMatch(NamedTuple):
    """A document that repeats a kept document."""

    step: int
    """Number of the filter that found it."""
    original: int
    """Position of the kept document; below 0 as in `DuplicateMatches`."""
    similarity: float


class DuplicateDecisions(NamedTuple):
    repeats: dict[int, DuplicateMatch]
    """By position of the repeating document."""
    under: dict[int, Indices]
    """By number of the filter, as in `DuplicateMatches`."""


def apply_row_filters(
    documents: Sequence[Document], configs: Sequence[FilterConfig], folder: Path = Path()
) -> RowFilterResult:
    """Run the filters that decide on one document at a time, and sketch the documents for the others.

    Raises:
        ValueError: if two documents have the same id.
        UsageError: if a file that a filter names cannot be read.
    """
    place_of = {document.id: place for place, document in enumerate(documents)}
    if len(place_of) != len(documents):
        raise ValueError("documents must have different ids")
    result = RowFilterResult(len(documents), {}, {}, {}, {})
    remaining = list(documents)
    for step, config in enumerate(configs):
        entry = find_filter_entry(config)
        known = [one for one in remaining if entry.can_judge(one, config)] if entry.can_judge else remaining
        result.unjudged[step] = len(remaining) - len(known)
        if isinstance(entry.run, SetFilter):
            result.sketched[step] = _sketch_documents(known, config, place_of)
            continue
        run = partial(entry.run, folder=folder) if entry.takes_folder else entry.run
        decisions = run(known, config)
        drops = {decision.id: decision for decision in decisions if isinstance(decision, DroppedDocument)}
        masks = {decision.id: decision.masks for decision in decisions if isinstance(decision, MaskedDocument)}
        remaining = [
            document.apply_masks(masks[document.id]) if document.id in masks else document
            for document in remaining
            if document.id not in drops
        ]
        result.drops.update({place_of[name]: (step, drop) for name, drop in drops.items()})
        result.masks.update({place_of[document.id]: document.masks for document in remaining if document.id in masks})
    return result


def _sketch_documents(
    documents: Sequence[Document], config: FilterConfig, place_of: Mapping[str, int]
) -> DocumentSketches:
    whole = isinstance(config, DuplicateFilter) and config.of == "conversation"
    compared = [document.with_question for document in documents] if whole else documents
    keep = config.keep if isinstance(config, KeepOneFilter) else "first"
    worth = [0.0] * len(compared)
    if keep == "longest":
        worth = [len(document.text) for document in compared]
    elif keep == "best":
        worth = [-math.inf if document.score is None else _convert_to_float(document.score) for document in compared]
    return DocumentSketches(
        np.array([place_of[document.id] for document in documents], dtype=np.int64),
        require_set_filter(config).sketch(compared, config),
        np.array(worth, dtype=np.float64),
    )


def _convert_to_float(score: float) -> float:
    """The largest float for an integer that is larger than all floats."""
    try:
        return float(score)
    except OverflowError:
        return math.copysign(sys.float_info.max, 1 if score > 0 else -1)


def sketch_released(documents: Sequence[Document], configs: Sequence[FilterConfig]) -> RowFilterResult:
    """Sketches of earlier releases, to be joined before all other batches. Released documents are never dropped, and are kept in
    preference to any similar document.

    Raises:
        ValueError: if two documents have the same id.
    """
    place_of = {document.id: place for place, document in enumerate(documents)}
    if len(place_of) != len(documents):
        raise ValueError("documents must have different ids")
    result = RowFilterResult(len(documents), {}, {}, {}, {})
    for step, config in enumerate(configs):
        if find_set_filter(config):
            sketches = _sketch_documents(documents, config, place_of)
            result.sketched[step] = sketches._replace(worth=np.full(len(documents), np.inf))
    return result


def join_batches(parts: Sequence[RowFilterResult]) -> RowFilterResult:
    """Join consecutive batches into one."""
    before = compute_offsets(np.array([part.documents for part in parts], dtype=np.int64)).tolist()
    whole = RowFilterResult(before[-1], {}, {}, {}, dict(sum((Counter(part.unjudged) for part in parts), Counter())))
    for first, part in zip(before, parts, strict=False):
        whole.drops.update({first + place: drop for place, drop in part.drops.items()})
        whole.masks.update({first + place: masks for place, masks in part.masks.items()})
    for step in parts[0].sketched if parts else ():
        batches = [part.sketched[step] for part in parts]
        sketches = RaggedArray(
            np.concatenate([batch.sketches.values for batch in batches]),
            compute_offsets(np.concatenate([batch.sketches.sizes for batch in batches])),
        )
        places = np.concatenate([first + batch.places for first, batch in zip(before, batches, strict=False)])
        whole.sketched[step] = DocumentSketches(places, sketches, np.concatenate([batch.worth for batch in batches]))
    return whole


CompareFunction = Callable[[RaggedArray, Indices, FilterConfig, Path], DuplicateMatches]
"""Compares the sketches at the given positions, in that order."""


def find_duplicates(
    judged: RowFilterResult,
    configs: Sequence[FilterConfig],
    folder: Path = Path(),
    among: Indices | None = None,
    compare: Mapping[str, CompareFunction] = {},
) -> DuplicateDecisions:
    """Find which documents repeat others, among all or among the positions in `among`. `compare` replaces the comparison of some
    types of filters.
    """
    out = np.zeros(judged.documents, dtype=np.bool_)
    if among is not None:
        out[:] = True
        out[among] = False
    result = DuplicateDecisions({}, {})
    for step, sketched in judged.sketched.items():
        remaining = np.flatnonzero(~out[sketched.places])
        order = remaining[np.argsort(-sketched.worth[remaining], kind="stable")]
        config, sketches = configs[step], sketched.sketches
        if config.type in compare:
            repeats = compare[config.type](sketches, order, config, folder)
        else:
            all_in_order = order.size == sketches.sizes.size and (np.diff(order) == 1).all()
            some = sketches if all_in_order else sketches.take_rows(order)
            repeats = require_set_filter(config).compare(some, config, folder)
        places = sketched.places[order]
        repeated = places[repeats.repeated]
        own = repeats.original >= 0
        original = np.where(own, places[np.where(own, repeats.original, 0)], repeats.original)
        out[repeated] = True
        columns = (repeated.tolist(), original.tolist(), repeats.similarity.tolist())
        result.repeats.update({place: DuplicateMatch(step, *match) for place, *match in zip(*columns, strict=True)})
        result.under[step] = repeats.under
    return result


def _build_drops(
    judged: RowFilterResult,
    decisions: DuplicateDecisions,
    configs: Sequence[FilterConfig],
    folder: Path,
    names: Sequence[str],
) -> dict[int, DroppedDocument]:
    """The reason of every dropped document by position: that of the first filter that dropped it. `names` are ids by position."""
    drops = {place: drop for place, (_, drop) in judged.drops.items()}
    name_in_index = build_index_names(configs, folder)
    for place, repeat in decisions.repeats.items():
        if place not in judged.drops or repeat.step < judged.drops[place][0]:
            original = names[repeat.original] if repeat.original >= 0 else name_in_index(repeat)
            drops[place] = build_duplicate_drop(names[place], repeat, configs[repeat.step], original)
    return drops


def build_index_names(configs: Sequence[FilterConfig], folder: Path) -> Callable[[DuplicateMatch], str]:
    """A function that names the `original` of a match with an index. Each index is opened once, at its first use."""

    @cache
    def open_index(step: int) -> DuplicateIndex:
        config = configs[step]
        assert isinstance(config, MinHashFilter)
        return open_duplicate_index(config, folder)

    return lambda match: open_index(match.step).label(-1 - match.original)


def build_duplicate_drop(name: str, repeat: DuplicateMatch, config: FilterConfig, original: str) -> DroppedDocument:
    """The reason of `name`, which repeats `original`."""
    kind = require_set_filter(config)
    return DroppedDocument(
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
    """Run the filters in order, each on what the earlier ones kept. Every document is either kept or dropped.

    Text that a filter masks stays masked for later filters; `masks` of a kept document lists it. Relative paths of the filters
    start from `folder`.

    Raises:
        ValueError: if two documents have the same id, since a drop names its document by id.
    """
    judged = apply_row_filters(documents, configs, folder)
    drops = _build_drops(
        judged, find_duplicates(judged, configs, folder), configs, folder, [document.id for document in documents]
    )
    kept = [
        document.apply_masks(judged.masks[place]) if place in judged.masks else document
        for place, document in enumerate(documents)
        if place not in drops
    ]
    return FilterResult(kept, [drops[place] for place in sorted(drops)])
