"""Two models on the same tasks, compared by which answers pass."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.intervals import estimate_paired_difference
from core.runs.student_records import PairedComparison

if TYPE_CHECKING:
    from agents.studies.held_out_evaluation import HeldOutResult


def compare_paired_results(
    role: str, student: "Sequence[HeldOutResult]", other: "Sequence[HeldOutResult]"
) -> PairedComparison:
    """The student and another model on the same seeds, in the same order."""
    return compare_outcomes(role, [one.fault is None for one in student], [one.fault is None for one in other])


def compare_outcomes(role: str, student: Sequence[bool], other: Sequence[bool]) -> PairedComparison:
    """Which tasks the student passes and another model or arm, in the same order."""
    pairs = Counter(zip(student, other, strict=True))
    return build_paired_comparison(role, pairs[True, True], pairs[True, False], pairs[False, True], pairs[False, False])


def build_paired_comparison(role: str, both: int, student_only: int, other_only: int, neither: int) -> PairedComparison:
    """The comparison from its four counts, which add up to at least one."""
    difference = estimate_paired_difference(both, student_only, other_only, neither)
    assert difference is not None, "there is a task"
    return PairedComparison(
        role=role,
        both=both,
        student_only=student_only,
        other_only=other_only,
        neither=neither,
        difference=difference,
    )
