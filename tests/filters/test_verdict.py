"""The gate and the null on numbers that are given: what counts, from what size, and in which unit."""

import numpy as np
import pytest

from core.run import CollapseVerdict
from filters.families import METRICS, NAMES, Comparison
from filters.null import Null
from filters.verdict import FLOORS, TAIL_NAMES, Evidence, judge, scores

BAD = np.array([metric.bad for metric in METRICS])


def evidence(**found: tuple[float, float]) -> Evidence:
    """Of those metrics the deviations and the change; the others are as in real text, where each is one."""
    z, change = ({name: found.get(name, (0.0, 0.0))[i] for name in NAMES} for i in range(2))
    return Evidence(z=z, change=change, real=dict.fromkeys(NAMES, 1.0), topics=0.0, documents=4_000)


def null() -> Null:
    """Of each metric another mean, and a deviation of one."""
    return Null(2_000, 30_000, np.arange(1.0, len(NAMES) + 1) + np.array([[-1.0], [0.0], [1.0]]), {})


@pytest.mark.parametrize("name", FLOORS)
def test_a_change_under_its_floor_is_nothing_however_sure_it_is(name: str) -> None:
    assert evidence(**{name: (10.0, FLOORS[name])}).worse(name)
    under = evidence(**{name: (10.0, 0.99 * FLOORS[name])})
    assert not under.worse(name)
    assert judge(under) == (CollapseVerdict.passed, {})


@pytest.mark.parametrize(
    ("new_words", "verdict", "reasons"),
    [
        ((10.0, 0.9), CollapseVerdict.collapse, {"tail": TAIL_NAMES}),
        ((10.0, 1.0), CollapseVerdict.shift, {"topics": ("new_words",)}),
    ],
)
def test_a_poorer_tail_with_new_words_is_another_kind_of_text(
    new_words: tuple[float, float], verdict: CollapseVerdict, reasons: dict[str, tuple[str, ...]]
) -> None:
    assert judge(evidence(hapax_mass=(10.0, 0.25), new_words=new_words)) == (verdict, reasons)


def test_scores_count_from_where_real_text_is_on_average() -> None:
    found = scores(Comparison(null().differences.mean(axis=0) + 3 * BAD, np.zeros(len(NAMES))), null(), 30_000, 2_000)
    assert found == pytest.approx(dict.fromkeys(NAMES, 3.0))


def test_four_times_the_words_have_half_the_deviation() -> None:
    assert null().deviations(30_000) == pytest.approx(np.ones(len(NAMES)))
    assert null().deviations(120_000) == pytest.approx(np.full(len(NAMES), 0.5))
