"""Curves, areas and thresholds against closed forms; the classifier against its own optimum and a planted truth."""

import numpy as np
import pytest

from students.logistic import cross_validated, fit, log_loss
from students.routing import (
    Outcomes,
    Told,
    aim_at_quality,
    area,
    curve_of,
    halves,
    lines_of,
    oracle_area,
    oracle_quality,
    random_quality,
    random_share_at,
    rates_of,
    resamples,
    threshold_for,
)


def outcomes_of(number: int = 400, seed: int = 1) -> tuple[Outcomes, np.ndarray]:
    """Queries of many difficulties, a teacher to whom all are alike, and a noisy signal of the difficulty."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=number)
    student = ease + rng.normal(size=number) > 0.3
    teacher = rng.random(number) < 0.8
    return Outcomes(student, teacher, rng.integers(50, 150, number).astype(float)), ease + rng.normal(size=number)


def told_of(outcomes: Outcomes, scores: np.ndarray) -> Told:
    return Told(outcomes, scores, resamples(len(scores), 3))


def halved(outcomes: Outcomes, scores: np.ndarray) -> tuple[tuple[Outcomes, np.ndarray], Told]:
    chosen, told = halves(len(scores), 5)
    return (outcomes.of(chosen), scores[chosen]), told_of(outcomes.of(told), scores[told])


def by_trapezoids(outcomes: Outcomes, scores: np.ndarray) -> float:
    """The area as its definition says: a curve over all cuts, less the line from its first point to its last."""
    called = np.argsort(scores, kind="stable")
    quality = outcomes.student.mean() + np.append(0, np.cumsum(outcomes.gain[called])) / len(scores)
    cuts = np.linspace(0, 1, len(scores) + 1)
    return float(np.trapezoid(quality - (quality[0] + cuts * (quality[-1] - quality[0])), cuts))


def test_the_area_is_that_of_the_curve_over_the_line() -> None:
    outcomes, scores = outcomes_of()
    assert area(outcomes.gain, scores) == pytest.approx(by_trapezoids(outcomes, scores), abs=1e-12)
    assert area(outcomes.gain, scores) > 0.02
    assert area(outcomes.gain, -scores) == pytest.approx(-area(outcomes.gain, scores), abs=1e-12)
    assert area(outcomes.gain, np.zeros(400)) == pytest.approx(0, abs=1e-12)


def test_the_area_knows_ranks_only_and_takes_ties_in_every_order() -> None:
    outcomes, scores = outcomes_of(60)
    coarse = np.round(scores)
    orders = [
        by_trapezoids(outcomes.of(order), coarse[order]) for order in map(np.random.default_rng(2).permutation, [60] * 4000)
    ]  # fmt: skip
    assert area(outcomes.gain, coarse) == pytest.approx(np.mean(orders), abs=4 * np.std(orders) / 4000**0.5)
    assert area(outcomes.gain, coarse) == area(outcomes.gain, np.exp(coarse)) == area(outcomes.gain, 3 * coarse - 7)


def test_the_oracles_closed_forms_are_those_of_a_router_that_knows() -> None:
    outcomes, _ = outcomes_of()
    rates, knowing = rates_of(outcomes), area(outcomes.gain, -outcomes.gain)
    cuts = np.linspace(0, 1, 2001)
    over = [oracle_quality(rates, cut) - random_quality(rates, cut) for cut in cuts]
    assert oracle_area(rates) == pytest.approx(np.trapezoid(over, cuts), abs=1e-6)
    assert oracle_area(rates) > knowing > 0, "one that must ask more and more loses where only the student passes"
    assert oracle_quality(rates, 1) == pytest.approx((outcomes.student | outcomes.teacher).mean())
    assert oracle_quality(rates, 0.01) == pytest.approx(outcomes.student.mean() + 0.01)


@pytest.mark.parametrize("seed", range(6))
def test_no_router_does_better_than_the_oracle(seed: int) -> None:
    outcomes, scores = outcomes_of(120, seed)
    chosen, told = halved(outcomes, scores)
    for point in curve_of("x", "", chosen, told).points:
        assert point.quality.value <= oracle_quality(rates_of(told.outcomes), point.share.value) + 1e-12


def test_a_signal_of_nothing_is_the_random_line() -> None:
    outcomes, _ = outcomes_of(8000)
    rng = np.random.default_rng(4)
    noise = rng.random(8000)
    chosen, told = halved(outcomes, noise)
    told = told._replace(places=told.places[:60])
    curve = curve_of("noise", "", chosen, told)
    assert curve.area.low < 0 < curve.area.high
    for point in curve.points:
        assert point.share.value == pytest.approx(point.aim, abs=0.03)
        assert point.quality.value == pytest.approx(
            random_quality(rates_of(told.outcomes), point.share.value), abs=0.02
        )


def test_the_ends_are_the_student_alone_and_the_teacher_alone() -> None:
    outcomes, scores = outcomes_of()
    chosen, told = halved(outcomes, scores)
    first, *_, last = curve_of("x", "", chosen, told).points
    assert (first.share.value, first.cost.value, first.quality.value) == (0, 0, told.outcomes.student.mean())
    assert (last.share.value, last.quality.value) == (1, told.outcomes.teacher.mean())
    assert last.cost.value == pytest.approx(told.outcomes.cost.mean())
    assert first.recovered
    assert last.recovered
    ends = (first.recovered.value, last.recovered.value, last.recovered.low, last.recovered.high)
    assert ends == pytest.approx((0, 1, 1, 1))
    random, oracle = lines_of(told.outcomes, told.places)
    assert random[0].value == first.quality.value == oracle[0].value
    assert random[-1].value == pytest.approx(last.quality.value)


def test_thresholds_let_so_many_go_and_none_of_equal_scores_that_they_fall_on() -> None:
    scores = [1.0, 2.0, 3.0, 4.0]
    assert [threshold_for(scores, share) for share in (0, 0.25, 0.5, 1)] == [-np.inf, 1.5, 2.5, np.inf]
    assert threshold_for([0.0, 1.0, 1.0, 1.0], 0.5) == 1.0


def test_what_is_told_changes_no_threshold() -> None:
    """The other half's outcomes turned round, its scores replaced: all that was chosen stays."""
    outcomes, scores = outcomes_of()
    chosen, told = halved(outcomes, scores)
    before = curve_of("x", "", chosen, told)
    turned = told.outcomes._replace(student=~told.outcomes.student, teacher=~told.outcomes.teacher)
    after = curve_of("x", "", chosen, told_of(turned, told.scores**3 - 5))
    assert [point.threshold for point in after.points] == [point.threshold for point in before.points]
    assert (after.scores, after.chosen_area) == (before.scores, before.chosen_area)
    assert after.at_quality.threshold == before.at_quality.threshold
    assert after.area.value == pytest.approx(-before.area.value)


def test_a_threshold_that_looks_good_by_chance_is_told_as_what_it_is() -> None:
    """Of a signal of nothing, chosen on few: where thresholds are chosen it promises 95 %, on the others it gives less."""
    short = []
    for seed in range(200):
        outcomes, _ = outcomes_of(60, seed)
        chosen, told = halved(outcomes, np.random.default_rng(1000 + seed).random(60))
        aim = aim_at_quality(*chosen)
        called = told.scores < threshold_for(np.sort(chosen[1]).tolist(), aim)
        quality = np.where(called, told.outcomes.teacher, told.outcomes.student).mean()
        short.append(quality - 0.95 * told.outcomes.teacher.mean())
    assert np.mean(short) < -0.02


def test_a_student_as_good_as_its_teacher_needs_no_call() -> None:
    outcomes, scores = outcomes_of()
    swapped = Outcomes(outcomes.teacher, outcomes.student, outcomes.cost)
    assert aim_at_quality(swapped, scores) == random_share_at(swapped) == 0
    point = curve_of("x", "", *halved(swapped, scores)).at_share
    assert point.recovered is None, "there is no gap to close"
    nobody = Outcomes(outcomes.student & False, outcomes.teacher & False, outcomes.cost)
    assert curve_of("x", "", *halved(nobody, scores)).at_share.retention is None


def test_a_random_router_at_the_share_told_has_the_quality_asked_for() -> None:
    outcomes, _ = outcomes_of()
    share = random_share_at(outcomes, 0.9)
    assert 0 < share < 1
    assert random_quality(rates_of(outcomes), share) == pytest.approx(0.9 * outcomes.teacher.mean())


def test_intervals_cover_what_they_are_of() -> None:
    """Of 200 sets of 100 queries, the true quality of one fixed threshold lies in about 95 % of the intervals."""
    everything, scores = outcomes_of(200_000, 9)
    true = np.where(scores < 0, everything.teacher, everything.student).mean()
    rng, inside = np.random.default_rng(10), 0
    for _ in range(200):
        places = rng.integers(0, 200_000, 100)
        quality = np.where(scores[places] < 0, everything.teacher[places], everything.student[places])
        low, high = np.percentile(quality[resamples(100, int(rng.integers(1 << 30)))].mean(axis=1), [2.5, 97.5])
        inside += low <= true <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_the_classifier_stands_at_its_optimum_and_finds_what_was_planted() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(600, 4)) * [1, 10, 0.1, 0] + [0, 5, 2, 3]
    logits = 1.5 * rows[:, 0] - 0.1 * (rows[:, 1] - 5) + 0.4
    classes = rng.random(600) < 1 / (1 + np.exp(-logits))
    model = fit(rows, classes, 2.0)
    standard = (rows - model.means) / model.scales
    slope = standard.T @ (model.chance(rows) - classes) + 2.0 * np.array(model.weights)
    assert np.abs(slope).max() < 1e-6, "the derivative of the penalised loss"
    assert model.weights[0] == pytest.approx(1.5, abs=0.35)
    assert model.weights[1] == pytest.approx(-1.0, abs=0.3)
    assert abs(model.weights[2]) < 0.25
    assert model.weights[3] == 0, "a column that never changes"
    assert fit(rows * 100 - 7, classes, 2.0).chance(rows * 100 - 7) == pytest.approx(model.chance(rows), abs=1e-6)
    assert fit(rows, ~classes, 2.0).chance(rows) == pytest.approx(1 - model.chance(rows), abs=1e-6)


def test_what_cross_validation_foretells_of_noise_is_no_better_than_the_share() -> None:
    rng = np.random.default_rng(7)
    seen, unseen = [], []
    for _ in range(12):
        rows, classes = rng.normal(size=(60, 8)), rng.random(60) < 0.4
        guess = log_loss(np.full(60, classes.mean()), classes)
        seen.append(log_loss(fit(rows, classes, 0.3).chance(rows), classes) - guess)
        unseen.append(log_loss(cross_validated(rows, classes, 1).chances, classes) - guess)
    assert np.mean(seen) < -0.05, "rows that were fitted to flatter it"
    assert np.mean(unseen) > -0.01


def test_one_class_or_two_separated_ones_break_nothing() -> None:
    rows = np.linspace(-1, 1, 30)[:, None]
    assert fit(rows, np.ones(30, bool), 1.0).chance(rows).min() > 0.9
    split = fit(rows, rows[:, 0] > 0, 0.3).chance(rows)
    assert ((split > 0.5) == (rows[:, 0] > 0)).all()
    assert np.isfinite(split).all()
