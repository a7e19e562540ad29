"""How often documents of one dataset have the same template, without a reference: beginnings as the dataset's own common words
and gaps, or the outlines of a kind of data that has them. Shown, part of no verdict.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.runs.records import MetricRecord, PhraseRecord
from filters.collapse.collapse_metrics import COLLAPSE_METRICS, ENDED, GAP, METRIC_NAMES, extract_skeletons
from filters.collapse.diversity import TokenSample, count_documents_by_word
from filters.collapse.explanation import EXAMPLES, MAX_OUTLINE
from filters.collapse.text_kinds import TextKind
from filters.collapse.within.sampling_error import estimate_pairs

Ints = npt.NDArray[np.int64]

COMMON_SHARE = 0.1
"""A word is common if at least this share of the documents has it."""
MAX_OUTLINED = 2_000
"""Documents whose outline is compared: a probability that two are alike does not depend on their number."""


class DatasetTemplates(NamedTuple):
    metrics: list[MetricRecord]
    phrases: list[PhraseRecord]
    """The most frequent templates, most frequent first."""


def measure_templates(
    texts: Sequence[str], own: TokenSample, shuffled: TokenSample, vocabulary: Mapping[str, int], kind: TextKind
) -> DatasetTemplates:
    """The probability that two documents have the same template, compared with that of the same words in random order. `own`
    are the units of those of `texts` that have any.
    """
    if kind.outline:
        templates: list[Hashable] = [kind.outline(text) for text in texts[:MAX_OUTLINED]]
        rows = [template for template in templates if template]
        spelled = {template: _shorten(str(template)) for template in rows}
        reference = 0.0
    else:
        common = np.flatnonzero(count_documents_by_word(own) >= max(2, COMMON_SHARE * len(own.lengths)))
        names = list(vocabulary)
        rows = _list_beginnings(own, common)
        spelled = {
            row: kind.join(["…" if word == GAP else names[word] for word in row])
            for row in set(rows)
            if isinstance(row, tuple)
        }
        reference = _find_collision(_list_beginnings(shuffled, common))
    if len(rows) < 2:
        return DatasetTemplates([], [])
    counts = Counter(rows)
    partners = np.array([counts[row] - 1 for row in rows])
    metric = COLLAPSE_METRICS[METRIC_NAMES.index("templates")]
    record = MetricRecord(
        name="templates", candidate=_find_collision(rows), reference=reference, low=0.0, high=1.0,
        meaning=f"shown, not gating: {kind.describe_metric(metric)}", interval=estimate_pairs(partners),
    )  # fmt: skip
    phrases = [
        PhraseRecord(text=spelled[row], candidate=count / len(rows))
        for row, count in counts.most_common(EXAMPLES)
        if count > 1
    ]
    return DatasetTemplates([record], phrases)


def _list_beginnings(sample: TokenSample, common: Ints) -> list[Hashable]:
    """The beginning of each document as common words and gaps. One without a common word, or too short for a whole beginning, is
    like no other: a number.
    """
    rows: list[Hashable] = []
    for number, row in enumerate(extract_skeletons(sample, common).tolist()):
        whole = row[-1] != ENDED and any(word >= 0 for word in row)
        rows.append(tuple(row) if whole else number)
    return rows


def _find_collision(rows: Sequence[Hashable]) -> float:
    """The probability that two of them are equal (Simpson 1949)."""
    total = len(rows)
    alike = sum(count * (count - 1) for count in Counter(rows).values())
    return alike / (total * (total - 1)) if total > 1 else 0.0


def _shorten(outline: str) -> str:
    return outline[:MAX_OUTLINE] + "…" * (len(outline) > MAX_OUTLINE)
