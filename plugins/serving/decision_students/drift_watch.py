"""Whether a certified threshold still holds in production: the distribution of scores, and agreement with the teacher on a
sampled share of answered cases. Knows no text and no server.
"""

from collections import deque
from typing import Any, NamedTuple

from plugins.serving.decision_students.agreement_bound import measure_drift, refute_agreement
from plugins.serving.decision_students.decision_student import SCORE_DIGITS, Guarantee

WINDOW = 1000
"""The most recent scores, and the most recent audits, that are compared."""
FEWEST_SCORES = 100
ALARM = 0.001
"""A p-value under it is an alarm. It is this small because the status is looked at again and again."""


class DriftStatus(NamedTuple):
    scores: int
    """Recent scores."""
    score_p_value: float | None
    """That they are drawn like those of the calibration; None with fewer than `FEWEST_SCORES`."""
    audited: int
    """Recent answered cases that the teacher answered too."""
    disagreements: int
    agreement_p_value: float | None
    """That the agreement is at least the target; None without audits."""
    warnings: list[str]
    """Sentences; empty if nothing speaks against the guarantee."""

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "holds": not self.warnings}


class DriftWatch:
    """Of one question."""

    def __init__(self, question: str, guarantee: Guarantee) -> None:
        self.question = question
        self.guarantee = guarantee
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self._audits: deque[bool] = deque(maxlen=WINDOW)

    def add_score(self, score: float) -> None:
        self._scores.append(round(score, SCORE_DIGITS))  # as those of the calibration are

    def add_audit(self, *, agrees: bool) -> None:
        """The result of a case that the student answered with its guarantee and the teacher answered too."""
        self._audits.append(agrees)

    def read_status(self) -> DriftStatus:
        target = self.guarantee.target
        enough = len(self._scores) >= FEWEST_SCORES
        score_p = measure_drift(self.guarantee.scores, list(self._scores)) if enough else None
        wrong = sum(not agrees for agrees in self._audits)
        agreement_p = refute_agreement(wrong, len(self._audits), target) if self._audits else None
        promise = "guarantee" if self.guarantee.calibration == "held-out" else "cross-validated threshold"
        warnings = []
        if agreement_p is not None and agreement_p < ALARM:
            warnings.append(
                f"{self.question}: the {promise} no longer holds: {wrong} of {len(self._audits)} audited answers differ from the "
                f"teacher's, and {100 * target.risk:.3g} % may; label recent texts and make the student again"
            )
        if score_p is not None and score_p < ALARM:
            warnings.append(
                f"{self.question}: recent scores differ from those of the calibration, so the {promise} may not hold for these "
                "texts; label some of them and make the student again"
            )
        return DriftStatus(len(self._scores), score_p, len(self._audits), wrong, agreement_p, warnings)
