"""The price of each teacher of a recipe: from the recipe, or else from a table of prices. Knows no budget."""

from collections.abc import Mapping
from pathlib import Path

from core.config.teachers import PRICE_KEYS, TeacherConfig
from core.prices import ListedPrice, find_listed_price

RECIPE_SOURCE = "the recipe"


class PriceRecord(ListedPrice):
    """The prices of one teacher, per million tokens, as a run used them."""

    currency: str | None = None
    """None for prices of the recipe, which names no currency."""
    source: str = RECIPE_SOURCE


def find_teacher_prices(teachers: Mapping[str, TeacherConfig], folder: Path) -> dict[str, PriceRecord]:
    """The known prices by teacher; free teachers are left out. `folder` is the recipe's.

    Raises:
        UsageError: if a table of prices cannot be used.
    """
    records = {}
    for name, config in teachers.items():
        if config.has_price:
            listed = config.model_copy(update={"batch": False})  # without the discount of batches
            if (prices := listed.prices()) and any(prices):
                records[name] = PriceRecord.model_validate(dict(zip(PRICE_KEYS, prices, strict=True)))
        elif found := find_listed_price(config.model, config.endpoint, folder):
            records[name] = PriceRecord(**found.price.model_dump(), currency=found.currency, source=found.source)
    return records


def apply_prices(teachers: Mapping[str, TeacherConfig], records: Mapping[str, PriceRecord]) -> dict[str, TeacherConfig]:
    """The teachers with the prices of tables; those of the recipe stay."""
    return {
        name: config.model_copy(update=record.model_dump(include=set(PRICE_KEYS)))
        if (record := records.get(name)) and record.source != RECIPE_SOURCE
        else config
        for name, config in teachers.items()
    }


def keep_recorded_prices(
    found: Mapping[str, PriceRecord], recorded: Mapping[str, PriceRecord]
) -> dict[str, PriceRecord]:
    """The prices of a resumed run: those that it recorded, so that an edited table does not change a running budget. A price in
    the recipe counts as it is now.
    """
    return {
        name: recorded[name]
        if record.source != RECIPE_SOURCE and name in recorded and recorded[name].source != RECIPE_SOURCE
        else record
        for name, record in found.items()
    }
