"""Agreement of two raters about the same items, corrected for chance. Knows no reviewer and no sample."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from core.intervals import Z_95, IntervalEstimate


def compute_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> IntervalEstimate | None:
    """Cohen's kappa (1960) of the labels that two raters gave the same items: (p - e) / (1 - e), with p the share of equal labels
    and e the share expected of raters who label independently with the same totals. 1 is full agreement, 0 is chance.

    The 95 % interval has the standard error of Cohen (1960), sqrt(p (1 - p) / (n (1 - e)^2)), which is rough below about 30
    items. None without items, or if both raters gave all items one and the same label.
    """
    count = len(pairs)
    if not count:
        return None
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    agreed = sum(a == b for a, b in pairs) / count
    expected = sum(first[label] * second[label] for label in first) / count**2
    if expected == 1:
        return None
    value = (agreed - expected) / (1 - expected)
    reach = Z_95 * math.sqrt(agreed * (1 - agreed) / count) / (1 - expected)
    return IntervalEstimate(value=value, low=max(-1.0, value - reach), high=min(1.0, value + reach))
