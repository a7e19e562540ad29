"""The table of all filters."""

from importlib.metadata import metadata

from core.config.filters import FILTER_TABLES
from filters.chain.registry import FILTERS


def test_every_filter_of_a_recipe_has_one_entry() -> None:
    assert set(FILTERS) == set(FILTER_TABLES)


def test_extras_of_filters_exist() -> None:
    extras = metadata("stillhouse").get_all("Provides-Extra") or []
    assert {entry.extra for entry in FILTERS.values() if entry.extra} <= set(extras)
    assert all(bool(entry.extra) == bool(entry.modules) for entry in FILTERS.values())
