"""The spread of kept samples over what their seeds drew: chance is not called uneven, a lost category is."""

import random
from typing import Any

import pytest

from core.runs.records import SpreadRecord
from filters.collapse.within.spread import TriedSeed, measure_spread

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


def test_the_interval_of_the_effective_number_covers_that_of_the_source() -> None:
    chance = random.Random(4)
    truth = 4.686  # exp of the entropy of 0.3, 0.25, 0.2, 0.15, 0.1
    covered = 0
    for _ in range(100):
        seeds = draw_seeds(chance, 150)
        found = next(a for a in spread_of(seeds, [True] * 150).attributes if a.name == "category")
        covered += found.interval[0] <= truth <= found.interval[1]
    assert covered >= 90
