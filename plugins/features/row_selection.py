"""`stillhouse select`: the rows of a dataset that cover most features, next to cheaper and random selections of as many rows."""

import heapq
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.storage.atomic_files import check_writable, write_bytes
from filters.collapse.matched_samples import TokenCorpus, split_into_words
from filters.ragged_arrays import RaggedArray, compute_offsets, sort_unique
from flows.rows.dataset_rows import read_all_rows
from flows.rows.row_forms import build_row_document
from flows.terminal.suggested_commands import format_next_line
from flows.terminal.text_format import format_count, format_table
from plugins.features.feature_dictionary import open_feature_reader
from plugins.features.lacking_features import compute_matched_thresholds, compute_thresholds

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


BY_FEATURES, BY_RANDOM, BY_LENGTH, BY_WORDS = "features", "random rows", "random rows of equal lengths", "word types"
RANDOM_DRAWS = 20
"""Random subsets whose mean is shown."""


class SelectionResult(BaseModel):
    """A selection of rows, and what it covers. Shares are of what the whole dataset has; of random selections, means."""

    model_config = ConfigDict(frozen=True)

    selection: str
    tokens: float
    features: float
    random_features: float
    """Of the random dictionary: what length alone covers."""
    word_types: float


class SelectionReport(BaseModel):
    """The result of `stillhouse select`."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    out: str
    rows: int
    of_rows: int
    features: int
    """Features that are present in the dataset."""
    word_types: int
    selections: list[SelectionResult]


class _Measured(NamedTuple):
    """The rows' items, by document."""

    features: RaggedArray
    random_features: RaggedArray
    words: RaggedArray
    tokens: npt.NDArray[np.int64]


def select_rows(
    source: Path, out: Path, rows: int, features: Path, seed: int, progress: Callable[[str], None]
) -> SelectionReport:
    """Write the selected rows, unchanged and in their order, as JSON lines.

    Raises:
        UsageError: if the rows or the dictionary cannot be read, `out` exists, or there are no more rows than wanted.
        StoreError: if `out` cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out}: exists already; name another file, or remove it")
    check_writable(out)
    read = list(read_all_rows(source, lambda row: (_encode_row(row), build_row_document(row).text)))
    if len(read) <= rows:
        raise UsageError(f"--rows {rows}: {source} has {format_count(len(read), 'row')}; select fewer than it has")
    texts = [text for _, text in read]
    reader = open_feature_reader(features)
    encoded = reader.encode(texts)
    tokens = np.array([len(text.ids) for text in encoded], dtype=np.int64)
    total = int(tokens.sum())
    pooled = reader.pool(encoded, lambda done: progress(f"select: {done:,} of {total:,} tokens read"))
    present = pooled.learned.keep_present(compute_thresholds(pooled.learned))
    control = pooled.random.keep_present(compute_matched_thresholds(pooled.random, present))
    vocabulary: dict[str, int] = {}
    corpus = TokenCorpus.from_words([split_into_words(text) for text in texts], vocabulary)
    items, control_items = (RaggedArray(side.latents, side.starts) for side in (present, control))
    measured = _Measured(items, control_items, _find_types(corpus), tokens)
    chosen = cover_greedily(measured.features, pooled.learned.size, rows)
    random = np.random.default_rng(seed)
    draws = {
        BY_FEATURES: [chosen],
        BY_WORDS: [cover_greedily(measured.words, max(1, len(vocabulary)), rows)],
        BY_LENGTH: [match_random_lengths(tokens, chosen, random) for _ in range(RANDOM_DRAWS)],
        BY_RANDOM: [random.permutation(len(read))[:rows] for _ in range(RANDOM_DRAWS)],
    }
    written = sorted(chosen.tolist())
    write_bytes(out, b"".join(read[place][0] for place in written))
    every = np.arange(len(read))
    return SelectionReport(
        dataset=str(source), out=str(out), rows=rows, of_rows=len(read), features=count_covered(measured.features, every),
        word_types=count_covered(measured.words, every),
        selections=[_measure_selection(name, places, measured) for name, places in draws.items()],
    )  # fmt: skip


def _encode_row(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, default=_encode_value).encode() + b"\n"


def _encode_value(value: Any) -> str:
    """Dates and the like as text."""
    if isinstance(value, bytes):
        raise UsageError(
            "select: rows with bytes, such as images, cannot be written as JSON lines; select among rows of text"
        )
    return str(value)


def _find_types(corpus: TokenCorpus) -> RaggedArray:
    """The different words of each document."""
    rows = [sort_unique(corpus.ids[a : a + n]) for a, n in zip(corpus.starts, corpus.lengths, strict=True)]
    return RaggedArray(np.concatenate([np.zeros(0, np.int64), *rows]), compute_offsets(np.array(list(map(len, rows)))))


def _measure_selection(name: str, draws: list[npt.NDArray[np.int64]], measured: _Measured) -> SelectionResult:
    every = np.arange(measured.tokens.size)

    def share(items: RaggedArray) -> float:
        return float(np.mean([count_covered(items, places) for places in draws])) / max(1, count_covered(items, every))

    tokens = float(np.mean([measured.tokens[places].sum() for places in draws]))
    return SelectionResult(
        selection=name, tokens=tokens, features=share(measured.features), random_features=share(measured.random_features),
        word_types=share(measured.words),
    )  # fmt: skip


def format_selection(report: SelectionReport) -> str:
    """The output of `stillhouse select`."""
    head = ["selected by", "tokens", "features", "random dictionary", "word types"]
    table: list[list[Any]] = [
        [s.selection, f"{s.tokens:,.0f}", f"{s.features:.1%}", f"{s.random_features:.1%}", f"{s.word_types:.1%}"]
        for s in report.selections
    ]
    return "\n".join([
        f"{report.out}  {format_count(report.rows, 'row')} of {report.of_rows:,}",
        f"shares of the {report.features:,} features and {report.word_types:,} word types of {report.dataset}",
        *format_table([head, *table]),
        "the random dictionary shows what more tokens cover by themselves; coverage predicts no student's quality",
        format_next_line("assess", report.out),
    ])  # fmt: skip
