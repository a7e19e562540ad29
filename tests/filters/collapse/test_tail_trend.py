"""The trend over generations: closed forms, and how often noise alone makes one."""

import random
from typing import Any

import numpy as np
import pytest

from core.runs.records import CollapseRecord, CollapseVerdict, SpreadRecord
from filters.collapse.collapse_metrics import METRIC_NAMES
from filters.collapse.collapse_verdict import MetricEvidence, decide_collapse
from filters.collapse.seed_spread import TriedSeed, measure_spread
from filters.collapse.tail_trend import find_lineage_trend, fit_tail_trend


def test_the_slope_is_that_of_least_squares() -> None:
    values = [0.3, 2.9, 4.1, 8.8, 9.0]
    found = fit_tail_trend(values)
    assert found is not None
    assert found.slope == pytest.approx(np.polyfit(range(5), values, 1)[0])
    assert found.z == pytest.approx(found.slope * np.sqrt(10))
    assert found.level == pytest.approx(np.polyval(np.polyfit(range(5), values, 1), 4))
    assert found.falling
    assert str(found).startswith("still losing rare words: +")


def test_noise_is_called_a_trend_about_once_in_a_thousand() -> None:
    """A normal deviate is over three 1.35 times in a thousand."""
    noise = np.random.default_rng(1).normal(size=(20_000, 4))
    falling = sum(bool(found.falling) for row in noise if (found := fit_tail_trend(row.tolist())))
    assert 10 <= falling <= 45


def test_a_constant_loss_is_steady_and_a_doubling_loss_is_not() -> None:
    """Four generations of a deviation of one each, on a line from the first level to the last."""
    noise = np.random.default_rng(1).normal(size=(5_000, 4))

    def steady(first: float, last: float) -> float:
        return float(np.mean([fit_tail_trend(row.tolist()).steady for row in noise + np.linspace(first, last, 4)]))  # type: ignore[union-attr]

    assert steady(10, 10) > 0.98
    assert steady(5, 10) < 0.06
    assert steady(10, 20) < 0.001


def evidence(lost: float) -> MetricEvidence:
    """Rare words are missing, a share of `lost` of those that real text has, ten deviations; nothing else differs."""
    nothing = dict.fromkeys(METRIC_NAMES, 0.0)
    return MetricEvidence(
        z={**nothing, "hapax_mass": 10.0}, change={**nothing, "hapax_mass": lost}, real=dict.fromkeys(METRIC_NAMES, 1.0),
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
    judgement = decide_collapse(evidence(lost), steady=steady)
    assert (judgement.verdict, list(judgement.reasons)) == (verdict, [reason] if reason else [])


def compared(tail: float | None, documents: int = 2000, reference: str = "real.jsonl") -> CollapseRecord:
    return CollapseRecord(reference=reference, documents=documents, tokens=20_000, tail=tail, metrics=[])


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([compared(9.0), compared(9.4)], "None"),
        ([compared(None), compared(9.0), compared(9.4)], "None"),
        ([compared(9.0), compared(8.8), compared(9.1)], "no significant further loss of rare words: +0.0 deviat"),
        (
            [compared(4.0), compared(9.0), compared(15.0)],
            "still losing rare words: +5.5 deviations of real text per gen",
        ),
        ([compared(4.0), compared(9.0, 1700), compared(15.0)], "still losing rare words"),
        ([compared(4.0), compared(9.0, 1500), compared(15.0)], "no trend: 1,500 to 2,000 documents were compared"),
        ([compared(4.0), compared(9.0, reference="b"), compared(15.0)], "no trend: the generations were compared with"),
    ],
)
def test_a_lineage_has_a_trend_if_its_generations_are_comparable(records: list[CollapseRecord], expected: str) -> None:
    assert str(find_lineage_trend(records)).startswith(expected)


CATEGORIES = {"travel": 30, "cooking": 25, "billing": 20, "sport": 15, "music": 10}


def draw_seeds(chance: random.Random, count: int) -> list[dict[str, Any]]:
    names, weights = list(CATEGORIES), list(CATEGORIES.values())
    return [
        {
            "category": chance.choices(names, weights)[0],
            "level": chance.choice(["easy", "hard"]),
            "turns": chance.choice([1, 2, 3]),
            "constraints": [{"kind": kind, "most": 7} for kind in chance.sample(["words", "sentences", "commas"], 2)],
            "drawn": {"tone": chance.choice(["plain", "formal", "warm", "curt"])},
            "text": f"a text that only seed {number} has",
            "score": chance.random(),
        }
        for number in range(count)
    ]


def spread_of(seeds: list[dict[str, Any]], kept: list[bool], quota: str | None = None) -> SpreadRecord:
    record = measure_spread([TriedSeed(*pair) for pair in zip(seeds, kept, strict=True)], quota)
    assert record is not None
    return record


@pytest.mark.parametrize(("count", "share"), [(60, 0.5), (300, 0.9), (400, 0.1)])
def test_random_drops_are_called_uneven_by_chance_in_at_most_a_twentieth(count: int, share: float) -> None:
    chance = random.Random(count)
    uneven = 0
    for _ in range(40):
        record = spread_of(draw_seeds(chance, count), [chance.random() < share for _ in range(count)])
        uneven += bool(record.uneven)
    assert uneven <= 6, "of 40, at 5 %: the 99.6 % quantile of a binomial"


def test_a_lost_category_is_found_with_both_shares() -> None:
    chance = random.Random(1)
    seeds = draw_seeds(chance, 200)
    kept = [chance.random() < (0.1 if seed["category"] == "billing" else 0.7) for seed in seeds]
    record = spread_of(seeds, kept)
    assert [attribute.name for attribute in record.uneven] == ["category"]
    (found,) = record.uneven
    assert (found.value, found.values) == ("billing", 5)
    assert found.kept_share < 0.06 < 0.15 < found.drawn_share
    assert found.interval[0] < found.kept_effective < found.interval[1]
    assert found.kept_effective < found.drawn_effective
    assert (
        f"`billing` {100 * found.kept_share:.0f} % of kept, {100 * found.drawn_share:.0f} % of seeds" in record.summary
    )


def test_drawn_values_that_are_too_many_are_shown_without_a_test() -> None:
    chance = random.Random(5)
    seeds = draw_seeds(chance, 200)
    for number, seed in enumerate(seeds):
        seed["drawn"]["persona"] = f"person {number // 2}"
    shown = {a.name: a for a in spread_of(seeds, [chance.random() < 0.5 for _ in seeds]).attributes}
    assert (shown["persona"].values, shown["persona"].p) == (100, None)
    assert shown["tone"].p is not None
    assert "text" not in shown


def test_the_interval_of_the_effective_number_covers_that_of_the_source() -> None:
    chance = random.Random(4)
    truth = 4.686  # exp of the entropy of 0.3, 0.25, 0.2, 0.15, 0.1
    covered = 0
    for _ in range(100):
        seeds = draw_seeds(chance, 150)
        found = next(a for a in spread_of(seeds, [True] * 150).attributes if a.name == "category")
        covered += found.interval[0] <= truth <= found.interval[1]
    assert covered >= 90
