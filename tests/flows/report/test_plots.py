"""Scales and paths of the pages' plots, computed by hand."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.report.panel_plot import LABEL_WIDTH, LINE, place_labels
from flows.report.plots import (
    PLOT_HEIGHT,
    PLOT_MARGIN,
    PLOT_WIDTH,
    CountScale,
    LinearScale,
    create_plot_area,
    list_powers_of_ten,
    list_round_values,
)


def test_a_linear_scale_maps_its_ends_and_a_single_value_to_the_start() -> None:
    scale = LinearScale(2.0, 4.0, 100.0, 0.0)
    assert [scale(value) for value in (2.0, 2.5, 4.0)] == [100.0, 75.0, 0.0]
    assert LinearScale(3.0, 3.0, 20.0, 80.0)(3.0) == 20.0
    assert LinearScale(0.0, 3.0, 0.0, 100.0, digits=2)(1.0) == 33.33


def test_counts_are_logarithmic_from_zero_to_the_full_height() -> None:
    scale = CountScale(99, 130)
    assert (scale(0), scale(9), scale(99)) == (0.0, 65.0, 130.0)


def test_a_small_plot_leaves_its_margin_free_and_its_highest_value_is_at_the_top() -> None:
    plot = create_plot_area((0, 10), [1.0, 5.0])
    assert plot.points([(0, 1.0), (10, 5.0)]) == "8,76 192,8"
    assert (plot.x(0), plot.x(10)) == (PLOT_MARGIN, PLOT_WIDTH - PLOT_MARGIN)
    assert (plot.y(5.0), plot.y(1.0)) == (PLOT_MARGIN, PLOT_HEIGHT - PLOT_MARGIN)


def test_margins_have_the_order_of_css() -> None:
    plot = create_plot_area((0, 1), [0, 1], size=(100, 100), margins=(1, 2, 3, 4))
    assert (plot.y(1), plot.x(1), plot.y(0), plot.x(0)) == (1, 98, 97, 4)


def test_a_band_goes_along_the_upper_line_and_back_along_the_lower() -> None:
    plot = create_plot_area((0, 1), [0, 1], size=(10, 10), margins=(0, 0, 0, 0))
    assert plot.band([(0, 0, 1), (1, 0.5, 1)]) == "0,0 10,0 10,5 0,10"


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [(0.41, 0.99, [0.6, 0.8]), (0.11, 0.19, [0.12, 0.14, 0.16, 0.18]), (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])],
)
def test_ticks_are_round(low: float, high: float, values: list[float]) -> None:
    assert list(list_round_values(low, high)) == pytest.approx(values)


def test_count_ticks_are_powers_of_ten_and_a_clearly_higher_maximum() -> None:
    assert list_powers_of_ten(7) == [1, 7]
    assert list_powers_of_ten(150) == [1, 10, 100]
    assert list_powers_of_ten(200) == [1, 10, 100, 200]


@given(st.lists(st.tuples(st.floats(0, 420), st.floats(0, 260)), min_size=1, max_size=4))
def test_labels_are_above_their_points_and_never_meet(places: list[tuple[float, float]]) -> None:
    points = {str(number): place for number, place in enumerate(places)}
    lines = place_labels(points)
    assert all(lines[role] < points[role][1] for role in points)
    for one, other in combinations(points, 2):
        assert abs(points[one][0] - points[other][0]) >= LABEL_WIDTH or abs(lines[one] - lines[other]) >= LINE - 1e-6
