"""The parts of the benchmark of pruned students that decide. The benchmark itself trains for an hour."""

import pytest

from benchmarks.pruned_students import DENSE, PRUNED, RANDOM, PrunedStudent, configure_arm, format_pruned_students
from plugins.forms.sparsity import Pruning

REQUESTS = 400


def student(failed: range) -> PrunedStudent:
    """Passes half of the requests, less those of `failed`."""
    passed = [place < REQUESTS // 2 and place not in failed for place in range(REQUESTS)]
    return PrunedStudent(
        rows=9, seconds=1.0, loss_before=2.0, loss_after=1.0, zeros=0.5, own=1.0, passed=passed
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seven", "eight", "line"),
    [
        (range(8), range(8), "pruned minus dense, 2 seeds: -2.0 (-3.4 to -0.6) points: within 5 points"),
        (
            range(16),
            range(16),
            "pruned minus dense, 2 seeds: -4.0 (-5.9 to -2.1) points: not shown to be within 5 points",
        ),
        (range(16), range(0), "pruned minus dense, 2 seeds: -2.0 (-3.0 to -1.0) points: within 5 points"),
    ],
)
def test_the_end_of_the_interval_decides_and_seeds_are_averaged(seven: range, eight: range, line: str) -> None:
    found = {"dense7": student(range(0)), "dense8": student(range(0)), "pruned7": student(seven)}
    table = format_pruned_students({**found, "pruned8": student(eight), "random7": student(range(100))})
    assert line in table
    assert "random minus dense, 1 seeds: -25.0" in table


def test_arms_differ_in_the_start_alone() -> None:
    dense, pruned, chance = (configure_arm(arm) for arm in (DENSE, PRUNED, RANDOM))
    assert dense.model_copy(update={"steps": pruned.steps}) == pruned
    assert dense.model_copy(update={"steps": chance.steps}) == chance
    masks = [config.steps[0].load()._pruning for config in (pruned, chance)]
    assert masks == [Pruning("wanda", 0.5), Pruning("random", 0.5)]
