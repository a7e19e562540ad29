import pytest

from core.runs.records import CriticRecord


@pytest.mark.parametrize(("reviews", "faulted", "is_silent"), [(20, 0, True), (19, 0, False), (500, 1, False)])
def test_few_reviews_say_nothing_about_a_critic(reviews: int, faulted: int, is_silent: bool) -> None:
    assert CriticRecord(reviews=reviews, faulted=faulted).is_silent is is_silent
