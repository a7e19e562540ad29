"""The trend over generations: closed forms, and how often noise alone makes one."""

import numpy as np
import pytest

from core.run import CollapseRecord, CollapseVerdict
from filters.families import NAMES
from filters.trend import trend, trend_of
from filters.verdict import Evidence, judge


def test_the_slope_is_that_of_least_squares() -> None:
    values = [0.3, 2.9, 4.1, 8.8, 9.0]
    found = trend(values)
    assert found is not None
    assert found.slope == pytest.approx(np.polyfit(range(5), values, 1)[0])
    assert found.z == pytest.approx(found.slope * np.sqrt(10))
    assert found.level == pytest.approx(np.polyval(np.polyfit(range(5), values, 1), 4))
    assert found.falling
    assert str(found).startswith("still losing rare words: +")


def test_a_low_level_is_no_trend() -> None:
    found = trend([9.0, 9.5, 8.8, 9.1])
    assert found is not None
    assert not found.falling
    assert trend([1.0, 9.0]) is None


def test_noise_is_called_a_trend_about_once_in_a_thousand() -> None:
    """A normal deviate is over three 1.35 times in a thousand."""
    noise = np.random.default_rng(1).normal(size=(20_000, 4))
    falling = sum(bool(found.falling) for row in noise if (found := trend(row.tolist())))
    assert 10 <= falling <= 45


def test_steady_is_what_does_not_rise_over_four_generations() -> None:
    assert trend([9.0, 9.5, 8.8, 9.1]).steady  # type: ignore[union-attr]
    assert not trend([9.0, 8.8, 9.1]).steady, "three say too little"  # type: ignore[union-attr]
    assert trend([10.0, 11.3, 12.7, 14.0]).steady, "it rises, by little of what is lost by now"  # type: ignore[union-attr]
    assert not trend([4.0, 7.3, 9.2, 9.8]).steady, "it slows, but it rises"  # type: ignore[union-attr]


def test_what_stays_is_called_steady_and_what_doubles_is_not() -> None:
    """Four generations of a deviation of one each, on a line from the first level to the last."""
    noise = np.random.default_rng(1).normal(size=(5_000, 4))

    def steady(first: float, last: float) -> float:
        return float(np.mean([trend(row.tolist()).steady for row in noise + np.linspace(first, last, 4)]))  # type: ignore[union-attr]

    assert steady(10, 10) > 0.98
    assert steady(5, 10) < 0.06
    assert steady(10, 20) < 0.001


def evidence(lost: float) -> Evidence:
    """Rare words are missing, a share of `lost` of those that real text has, ten deviations; nothing else differs."""
    nothing = dict.fromkeys(NAMES, 0.0)
    return Evidence(
        z={**nothing, "hapax_mass": 10.0}, change={**nothing, "hapax_mass": lost}, real=dict.fromkeys(NAMES, 1.0),
        topics=0.0, documents=4_000,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "steady", "verdict", "reason"),
    [
        (0.25, False, CollapseVerdict.collapse, "tail"),
        (0.25, True, CollapseVerdict.shift, "steady"),
        (0.40, True, CollapseVerdict.collapse, "tail"),
        (0.04, True, CollapseVerdict.passed, None),
    ],
)
def test_a_bounded_loss_that_has_stopped_growing_is_no_collapse(
    lost: float, steady: bool, verdict: CollapseVerdict, reason: str | None
) -> None:
    judgement = judge(evidence(lost), steady=steady)
    assert (judgement.verdict, list(judgement.reasons)) == (verdict, [reason] if reason else [])


def compared(tail: float | None, documents: int = 2000, reference: str = "real.jsonl") -> CollapseRecord:
    return CollapseRecord(reference=reference, documents=documents, tokens=20_000, tail=tail, metrics=[], note="")


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([compared(9.0), compared(9.4)], "None"),
        ([compared(None), compared(9.0), compared(9.4)], "None"),
        ([compared(9.0), compared(8.8), compared(9.1)], "no further loss of rare words that can be told: +0.0 deviat"),
        (
            [compared(4.0), compared(9.0), compared(15.0)],
            "still losing rare words: +5.5 deviations of real text a gener",
        ),
        ([compared(4.0), compared(9.0, 1700), compared(15.0)], "still losing rare words"),
        ([compared(4.0), compared(9.0, 1500), compared(15.0)], "not told: 1,500 to 2,000 documents were compared"),
        ([compared(4.0), compared(9.0, reference="b"), compared(15.0)], "not told: the generations were compared with"),
    ],
)
def test_the_trend_of_a_lineage_is_told_where_its_generations_can_be_compared(
    records: list[CollapseRecord], told: str
) -> None:
    assert str(trend_of(records)).startswith(told)
