"""The gate and the null on numbers that are given: what counts, from what size, and in which unit."""

import numpy as np
import pytest

from core.runs.records import CollapseVerdict
from filters.collapse.collapse_metrics import COLLAPSE_METRICS, METRIC_NAMES, MetricComparison
from filters.collapse.collapse_verdict import (
    MIN_CHANGES,
    MIN_LOSS,
    TAIL_LIMIT,
    TAIL_METRICS,
    MetricEvidence,
    compute_z_scores,
    decide_collapse,
)
from filters.collapse.null_distribution import NullDistribution

BAD = np.array([metric.worse_sign for metric in COLLAPSE_METRICS])


def evidence(**found: tuple[float, float]) -> MetricEvidence:
    """Of those metrics the deviations and the change; the others are as in real text, where each is one."""
    z, change = ({name: found.get(name, (0.0, 0.0))[i] for name in METRIC_NAMES} for i in range(2))
    return MetricEvidence(z=z, change=change, real=dict.fromkeys(METRIC_NAMES, 1.0), topics=0.0, documents=4_000)


def null() -> NullDistribution:
    """Of each metric another mean, and a deviation of one."""
    return NullDistribution(2_000, 30_000, np.arange(1.0, len(METRIC_NAMES) + 1) + np.array([[-1.0], [0.0], [1.0]]), {})


@pytest.mark.parametrize("name", MIN_CHANGES)
def test_a_significant_change_under_its_floor_does_not_count(name: str) -> None:
    assert evidence(**{name: (10.0, MIN_CHANGES[name])}).is_worse(name)
    under = evidence(**{name: (10.0, 0.99 * MIN_CHANGES[name])})
    assert not under.is_worse(name)
    assert decide_collapse(under) == (CollapseVerdict.passed, {})


@pytest.mark.parametrize(
    ("new_words", "verdict", "reasons"),
    [
        ((10.0, 0.9), CollapseVerdict.collapse, {"tail": TAIL_METRICS}),
        ((10.0, 1.0), CollapseVerdict.shift, {"topics": ("new_words",)}),
    ],
)
def test_a_poorer_tail_with_new_words_is_another_kind_of_text(
    new_words: tuple[float, float], verdict: CollapseVerdict, reasons: dict[str, tuple[str, ...]]
) -> None:
    assert decide_collapse(evidence(hapax_mass=(10.0, 0.25), new_words=new_words)) == (verdict, reasons)


@pytest.mark.parametrize(
    ("reverse_surprise", "topics", "surprise", "verdict"),
    [
        (0.75, 12.0, 0.0, CollapseVerdict.shift),
        (0.74, 12.0, 0.0, CollapseVerdict.collapse),
        (0.75, 11.9, 0.0, CollapseVerdict.collapse),
        (0.75, 12.0, -MIN_CHANGES["surprise"], CollapseVerdict.collapse),
    ],
)
def test_a_poorer_tail_on_other_topics_in_other_words_is_another_kind_of_text_unless_it_is_likely(
    reverse_surprise: float, topics: float, surprise: float, verdict: CollapseVerdict
) -> None:
    metrics = {"hapax_mass": (10.0, 0.25), "reverse_surprise": (20.0, reverse_surprise), "surprise": (0.0, surprise)}
    assert decide_collapse(evidence(**metrics)._replace(topics=topics)).verdict is verdict


@pytest.mark.parametrize(
    ("hapax", "coverage", "verdict"),
    [
        ((TAIL_LIMIT, 0.25), (0.0, 0.0), CollapseVerdict.collapse),
        ((TAIL_LIMIT - 0.1, 0.25), (0.0, 0.0), CollapseVerdict.passed),
        ((10.0, MIN_LOSS - 0.04), (2.0, 0.05), CollapseVerdict.collapse),
        ((10.0, MIN_LOSS - 0.04), (2.0, 0.03), CollapseVerdict.passed),
        ((10.0, MIN_LOSS + 0.02), (-2.0, -0.05), CollapseVerdict.passed),
        ((0.0, 0.0), (3.9, 0.25), CollapseVerdict.passed),
    ],
)
def test_a_loss_of_rare_words_is_significant_in_one_metric_and_large_in_two(
    hapax: tuple[float, float], coverage: tuple[float, float], verdict: CollapseVerdict
) -> None:
    assert decide_collapse(evidence(hapax_mass=hapax, tail_coverage=coverage)).verdict is verdict


@pytest.mark.parametrize(
    ("z", "lost", "documents", "new_words", "steady", "verdict"),
    [
        ((2.8, 0.0), 0.12, 1_500, 0.0, False, CollapseVerdict.inconclusive),
        ((0.8, 2.0), 0.12, 1_500, 0.0, False, CollapseVerdict.inconclusive),
        ((2.8, 0.0), 0.12, 2_000, 0.0, False, CollapseVerdict.passed),  # replaced text would lack more
        ((2.8, 0.0), 0.08, 1_500, 0.0, False, CollapseVerdict.passed),
        ((2.8, -0.1), 0.12, 1_500, 0.0, False, CollapseVerdict.passed),  # real text is so, one time in 40
        ((4.0, 0.0), 0.15, 1_500, 0.0, False, CollapseVerdict.collapse),
        ((2.8, 0.0), 0.12, 1_500, 10.0, False, CollapseVerdict.shift),  # another kind of text
        ((2.8, 0.0), 0.12, 1_500, 0.0, True, CollapseVerdict.passed),  # a lineage shows that the loss has stopped
    ],
)
def test_a_loss_that_may_be_that_of_replaced_text_is_inconclusive(
    z: tuple[float, float], lost: float, documents: int, new_words: float, steady: bool, verdict: CollapseVerdict
) -> None:
    """With deviations of 0.04: at 1,500 documents replaced text loses 0.165, and 0.12 is within 1.96 deviations of it."""
    found = evidence(hapax_mass=(z[0], lost), reverse_surprise=(z[1], 0.0), new_words=(new_words, new_words))
    decision = decide_collapse(found._replace(documents=documents, loss_deviation=0.04), steady=steady)
    assert decision.verdict is verdict
    assert ("uncertain" in decision.reasons) == (verdict is CollapseVerdict.inconclusive)


def test_z_scores_are_relative_to_the_mean_of_real_text() -> None:
    found = compute_z_scores(
        MetricComparison(null().differences.mean(axis=0) + 3 * BAD, np.zeros(len(METRIC_NAMES))), null(), 30_000, 2_000
    )
    assert found == pytest.approx(dict.fromkeys(METRIC_NAMES, 3.0))


def test_four_times_the_words_halve_the_deviation_of_a_mean() -> None:
    """Of hapax_mass and heaps_slope, which count rare events, it falls by other powers."""
    assert null().compute_deviations(30_000) == pytest.approx(np.ones(len(METRIC_NAMES)))
    found = dict(zip(METRIC_NAMES, null().compute_deviations(120_000), strict=True))
    assert found == pytest.approx({**dict.fromkeys(METRIC_NAMES, 0.5), "hapax_mass": 4**-0.7, "heaps_slope": 4**-0.3})
