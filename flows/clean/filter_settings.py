"""Which filters `stillhouse filter` applies: parsed from its options, with the index of earlier releases. Runs no filter."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.config.filters import DEFAULT_FILTERS, FilterConfig, MinHashFilter
from core.config.loading import parse_settings
from core.errors import UsageError
from filters.duplicates.duplicate_index import HEADER_FILE, DuplicateIndex


class FilterListSettings(BaseModel):
    """What `--set` of `stillhouse filter` can set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filters: tuple[FilterConfig, ...] = DEFAULT_FILTERS


def parse_filter_settings(settings: Sequence[str], names: str | None = None) -> Sequence[FilterConfig]:
    """The filters of the setting `filters`; or those in `names`, separated by commas, with their defaults; or the default ones.

    Raises:
        RecipeError: for a setting other than `filters`.
    """
    if names is not None:
        types = [name.strip() for name in names.split(",") if name.strip()]
        tables = ", ".join(f"{{ type = {json.dumps(filter_type)} }}" for filter_type in types)
        settings = [f"filters=[{tables}]", *settings]
    return parse_settings(FilterListSettings, settings).filters


def apply_duplicate_index(configs: Sequence[FilterConfig], index: Path) -> Sequence[FilterConfig]:
    """The filters, each `minhash` filter with this index. A `minhash` filter without `of` compares what the index contains.

    Raises:
        UsageError: if no filter is a `minhash` filter.
    """
    if not any(isinstance(config, MinHashFilter) for config in configs):
        raise UsageError("--index: only the filter `minhash` uses an index, and it is not among the filters; add it")
    updated: list[FilterConfig] = []
    for config in configs:
        if isinstance(config, MinHashFilter):
            update: dict[str, Any] = {"index": str(index.resolve())}
            if "of" not in config.model_fields_set and (index / HEADER_FILE).exists():
                update["of"] = DuplicateIndex(index, ngram=config.ngram).of
            config = config.model_copy(update=update)
        updated.append(config)
    return updated
