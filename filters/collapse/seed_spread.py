"""How evenly the kept samples of a run cover what was drawn for its seeds: categories, kinds, conditions. Decides no verdict.

Each value of an attribute is tested for being kept less often than chance: the one-sided hypergeometric probability (Fisher's
exact test 1935), with Bonferroni's correction over the values of an attribute and Holm's (1979) over the attributes. Knows
neither families nor why a sample is dropped.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from core.intervals import Z_95, hypergeometric_lower_tail
from core.runs.records import AttributeSpread, SpreadRecord
from core.sample import CONDITIONS_KEY, Labels, iterate_labels
from filters.collapse.diversity import compute_effective_number, estimate_entropy

MAX_VALUES = 50
"""An attribute with more values is no category."""
MIN_SEEDS_PER_VALUE = 3
"""Fewer seeds per value, on average, say nothing about the values."""
MIN_KEPT = 10
"""Fewer kept seeds say nothing."""
MAX_SHOWN_CHARACTERS = 60


class TriedSeed(NamedTuple):
    """A seed with a finished sample."""

    data: Mapping[str, Any]
    kept: bool


def measure_spread(seeds: Sequence[TriedSeed], quota: str | None = None) -> SpreadRecord | None:
    """The spread over all categorical attributes of the seeds. `quota`: the attribute whose values the recipe's quotas decide on,
    which is shown without a test. None if too few are kept, or no attribute is categorical.
    """
    kept = [seed.kept for seed in seeds]
    if sum(kept) < MIN_KEPT:
        return None
    drawn = list_attributes([seed.data for seed in seeds], drawn_of_many=True)
    found = [
        _compare_values(name, labels, kept, tested=name != quota and _is_categorical(labels))
        for name, labels in drawn.items()
    ]
    attributes = _correct_over_attributes(found)
    attributes.sort(key=lambda attribute: (1.0 if attribute.p is None else attribute.p, attribute.name))
    return SpreadRecord(tried=len(seeds), kept=sum(kept), attributes=attributes) if attributes else None


def list_attributes(seeds: Sequence[Mapping[str, Any]], *, drawn_of_many: bool = False) -> dict[str, list[Labels]]:
    """The values of each seed by attribute, for attributes with few values; with `drawn_of_many` also for what is drawn in
    addition to a seed, such as a persona. Of attributes that say the same, the first.
    """
    drawn = {name for seed in seeds if drawn_of_many for name in seed.get(CONDITIONS_KEY) or ()}
    labeled = [dict(iterate_labels(seed)) for seed in seeds]
    names = dict.fromkeys(name for labels in labeled for name in labels)
    attributes: dict[str, list[Labels]] = {}
    seen: set[tuple[int, ...]] = set()
    for name in names:
        column = [labels.get(name, frozenset()) for labels in labeled]
        if not _is_categorical(column) and name not in drawn:
            continue
        numbers: dict[Labels, int] = {}
        partition = tuple(numbers.setdefault(labels, len(numbers)) for labels in column)
        if len(numbers) > 1 and partition not in seen:
            seen.add(partition)
            attributes[name] = column
    return attributes


def _is_categorical(column: Sequence[Labels]) -> bool:
    values = set[str]().union(*column)
    return 2 <= len(values) <= min(MAX_VALUES, len(column) / MIN_SEEDS_PER_VALUE)


def _compare_values(name: str, column: Sequence[Labels], kept: Sequence[bool], *, tested: bool) -> AttributeSpread:
    drawn = Counter(label for labels in column for label in labels)
    left = Counter(label for labels, is_kept in zip(column, kept, strict=True) if is_kept for label in labels)
    seeds, survivors = len(column), sum(kept)
    # With equal probabilities, the value that lost most comes first.
    rarity = {
        value: (hypergeometric_lower_tail(left[value], count, survivors, seeds), left[value] / count)
        for value, count in drawn.items()
    }
    value = min(sorted(rarity), key=rarity.__getitem__)
    low, high = _estimate_effective_number(left, len(drawn))
    return AttributeSpread(
        name=name,
        values=len(drawn),
        kept_values=len(left),
        drawn_effective=compute_effective_number(drawn.values(), corrected=True),
        kept_effective=compute_effective_number(left.values(), corrected=True),
        interval=(low, high),
        value=value if len(value) <= MAX_SHOWN_CHARACTERS else f"{value[: MAX_SHOWN_CHARACTERS - 1]}…",
        drawn_share=drawn[value] / seeds,
        kept_share=left[value] / survivors,
        p=min(1.0, len(drawn) * rarity[value][0]) if tested else None,
    )


def _correct_over_attributes(found: Sequence[AttributeSpread]) -> list[AttributeSpread]:
    """Holm's step-down correction: the smallest of m probabilities times m, the next times m - 1, never falling."""
    tested = sorted((a for a in found if a.p is not None), key=lambda attribute: attribute.p or 0.0)
    corrected, largest = [], 0.0
    for rank, attribute in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * (attribute.p or 0.0)))
        corrected.append(attribute.model_copy(update={"p": largest}))
    return [*corrected, *(attribute for attribute in found if attribute.p is None)]


def _estimate_effective_number(counts: Counter[str], values: int) -> tuple[float, float]:
    """95 % interval of the effective number, from the variance of the entropy to the second order (Harris 1975)."""
    if not counts:
        return 0.0, 0.0
    total, entropy = counts.total(), estimate_entropy(counts.values(), corrected=True)
    shares = [count / total for count in counts.values() if count]
    plain = estimate_entropy(counts.values())
    variance = (sum(share * math.log(share) ** 2 for share in shares) - plain**2) / total
    reach = Z_95 * math.sqrt(max(variance, 0.0) + (values - 1) / (2 * total * total))
    return max(1.0, math.exp(entropy - reach)), min(float(values), math.exp(entropy + reach))
