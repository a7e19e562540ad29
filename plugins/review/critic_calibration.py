"""How the critic's scores compare with people's decisions: what each `min_score` would have let through. Knows no page."""

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from plugins.review.log import HIGHEST_SCORE, LOWEST_SCORE
from plugins.review.review_samples import ReviewSource


class CriticThreshold(BaseModel):
    """What passes with one `min_score`: samples whose lowest score is not below it."""

    model_config = ConfigDict(frozen=True)

    min_score: int
    good_passed: int
    poor_passed: int


class RubricDifference(BaseModel):
    """The critic's scores minus people's by one rubric, on the samples that both scored."""

    model_config = ConfigDict(frozen=True)

    rubric: str
    samples: int
    mean_difference: float


class CriticCalibration(BaseModel):
    """Reviewed samples with scores of the critic. Good is what people keep unchanged."""

    model_config = ConfigDict(frozen=True)

    good: int
    poor: int
    thresholds: list[CriticThreshold]
    current: int
    """`agents.critic.min_score` of the run."""
    best: int | None
    """The value with the largest Youden's J (1950), the share of good that passes minus that of poor; of equal ones the lowest.
    None if only good or only poor samples were reviewed, or no value is better than chance."""
    rubrics: list[RubricDifference]

    @property
    def sentences(self) -> list[str]:
        def describe(threshold: CriticThreshold) -> str:
            return (
                f"min_score = {threshold.min_score} passes {threshold.good_passed:,} of {self.good:,} good and "
                f"{threshold.poor_passed:,} of {self.poor:,} poor samples"
            )

        rows = {threshold.min_score: describe(threshold) for threshold in self.thresholds}
        found = [f"critic: {rows[self.current]}"]
        if self.best is None:
            found.append("critic: no min_score separates good from poor ones here")
        elif self.best != self.current:
            found.append(f"critic: {rows[self.best]}, the best of these samples")
        return [
            *found,
            *(
                f"critic: scores {one.rubric} {one.mean_difference:+.1f} from people's on {one.samples:,} samples"
                for one in self.rubrics
            ),
        ]


class _ScoredSample(NamedTuple):
    lowest: int
    good: bool


def calibrate_critic(source: ReviewSource) -> CriticCalibration | None:
    """None for a file, for a run without a critic, and if no sample with scores was reviewed."""
    if source.min_score is None:
        return None
    judged = [
        _ScoredSample(min(sample.scores.values()), entry.decision == "keep")
        for name, entry in source.log.list_decided()
        if (sample := source.samples.get(name)) is not None and sample.scores
    ]
    if not judged:
        return None
    good, poor = [one.lowest for one in judged if one.good], [one.lowest for one in judged if not one.good]
    thresholds = [
        CriticThreshold(
            min_score=score,
            good_passed=sum(lowest >= score for lowest in good),
            poor_passed=sum(lowest >= score for lowest in poor),
        )
        for score in range(LOWEST_SCORE, HIGHEST_SCORE + 1)
    ]
    best = None
    if good and poor:
        first = max(thresholds, key=lambda one: one.good_passed / len(good) - one.poor_passed / len(poor))
        if first.good_passed / len(good) > first.poor_passed / len(poor):
            best = first.min_score
    return CriticCalibration(
        good=len(good), poor=len(poor), thresholds=thresholds, current=source.min_score, best=best,
        rubrics=list(_compare_rubrics(source)),
    )  # fmt: skip


def _compare_rubrics(source: ReviewSource) -> Iterable[RubricDifference]:
    differences: dict[str, list[float]] = {}
    for name, reviews in source.log.samples.items():
        if (sample := source.samples.get(name)) is None:
            continue
        for reviewer in reviews.reviewers:
            for rubric, score in reviews.merge_scores(reviewer).items():
                if rubric in sample.scores:
                    differences.setdefault(rubric, []).append(sample.scores[rubric] - score)
    for rubric, values in differences.items():
        yield RubricDifference(rubric=rubric, samples=len(values), mean_difference=sum(values) / len(values))
