"""Coverage against risk of a selective classifier, next to a random choice of cases and an oracle. Knows scores and agreements.

El-Yaniv and Wiener 2010 define both; Geifman and El-Yaniv 2017 (arXiv 1705.08500) bound the risk.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from plugins.serving.decision_students.agreement_bound import AgreementTarget, ScoredCases, upper_risk_bound

CURVE_POINTS = 50


class CurvePoint(BaseModel):
    """The cases with the highest scores, up to one coverage."""

    model_config = ConfigDict(frozen=True)

    coverage: float
    """The share of cases that are answered."""
    risk: float
    """The share of answered cases that disagree with the teacher."""
    bound: float
    """The upper bound of the risk, for this coverage alone."""
    oracle: float
    """The risk if all agreeing cases came first."""


class SelectiveCurve(BaseModel):
    model_config = ConfigDict(frozen=True)

    points: list[CurvePoint]
    random: float
    """The risk of a random choice of cases, at each coverage."""
    area: float
    """Under the risk, over coverage from 0 to 1 (AURC); lower is better."""
    oracle_area: float


def build_selective_curve(cases: ScoredCases, target: AgreementTarget) -> SelectiveCurve:
    """At least one case is needed."""
    order = np.argsort(-cases.scores, kind="stable")
    wrong = np.cumsum(~cases.agrees[order])
    counts = np.arange(1, len(order) + 1)
    oracle = np.maximum(0, counts - int(cases.agrees.sum()))
    places = np.unique(np.ceil(np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS * len(order)).astype(int) - 1)
    points = [
        CurvePoint(
            coverage=float(counts[i] / len(order)),
            risk=float(wrong[i] / counts[i]),
            bound=upper_risk_bound(int(wrong[i]), int(counts[i]), target.delta),
            oracle=float(oracle[i] / counts[i]),
        )
        for i in places
    ]
    return SelectiveCurve(
        points=points,
        random=float(wrong[-1] / len(order)),
        area=float((wrong / counts).mean()),
        oracle_area=float((oracle / counts).mean()),
    )


def oracle_coverage(cases: ScoredCases, risk: float) -> float:
    """The largest share of cases with at most this risk, if all agreeing cases come first."""
    agreeing = int(cases.agrees.sum())
    return min(1.0, agreeing / (1 - risk) / len(cases.agrees))
