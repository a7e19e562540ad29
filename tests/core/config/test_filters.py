import pytest

from core.config.filters import FILTER_TABLES


@pytest.mark.parametrize("name", FILTER_TABLES)
def test_each_filter_states_what_it_removes(name: str) -> None:
    assert FILTER_TABLES[name].about.startswith(("removes ", "masks or removes "))


def test_filters_are_listed_by_their_type() -> None:
    assert {"length", "exact", "minhash", "pii"} <= FILTER_TABLES.keys()
