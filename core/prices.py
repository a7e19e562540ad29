"""Prices of a teacher's tokens, and the table of prices that users can edit. Knows no recipe and no budget."""

import datetime
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, model_validator

from core.errors import UsageError
from core.project_files import SHIPPED, find_referenced_file
from core.sample import FrozenModel, TokenUsage

USER_TABLE = "prices.toml"
"""The user's table: next to the recipe, or in the working directory."""
SHIPPED_TABLE = "data/prices.toml"


class TokenPrices(NamedTuple):
    """Prices per million tokens."""

    input: float
    output: float
    cached: float
    cache_write: float
    reasoning: float

    def cost(self, usage: TokenUsage) -> float:
        """The cost of `usage`. More cached, written or thinking tokens than tokens are not counted."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
        thought = min(usage.reasoning_tokens, usage.completion_tokens)
        millions = (
            (usage.prompt_tokens - cached - written) * self.input
            + cached * self.cached
            + written * self.cache_write
            + (usage.completion_tokens - thought) * self.output
            + thought * self.reasoning
        )
        return millions / 1e6

    def max_cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The most that at most this number of tokens can cost: all of them at the highest price of their kind."""
        prompt = prompt_tokens * max(self.input, self.cached, self.cache_write)
        return (prompt + completion_tokens * max(self.output, self.reasoning)) / 1e6

    def cache_saving(self, usage: TokenUsage) -> float:
        """The cost without a prompt cache, minus the cost; negative if writing to the cache cost more than reading saved."""
        return self.cost(usage.model_copy(update={"cached_tokens": 0, "cache_write_tokens": 0})) - self.cost(usage)

    def scale(self, factor: float) -> "TokenPrices":
        return TokenPrices(*(price * factor for price in self))


class ListedPrice(FrozenModel):
    """The prices of one pattern of model names, with the names of a recipe's keys."""

    input_price: float = Field(ge=0)
    output_price: float = Field(ge=0)
    cached_price: float | None = Field(None, ge=0)
    cache_write_price: float | None = Field(None, ge=0)
    reasoning_price: float | None = Field(None, ge=0)


class PriceProvider(FrozenModel):
    """The prices of one endpoint."""

    protocol: str
    """The part of `teachers.NAME.model` before the first slash."""
    base_url: str = ""
    """The endpoint's URL, or a beginning of it up to a slash; "" for protocols without one."""
    models: dict[str, ListedPrice]
    """By a pattern of the part of `teachers.NAME.model` after the first slash (`gpt-5-mini*`). The longest pattern that
    matches counts."""

    def serves(self, endpoint: str) -> bool:
        return f"{endpoint}/".startswith(self.base_url.rstrip("/") + "/")

    def find(self, name: str) -> ListedPrice | None:
        matching = [pattern for pattern in self.models if fnmatchcase(name, pattern)]
        return self.models[max(matching, key=len)] if matching else None


class PriceTable(FrozenModel):
    """A file of prices: each of its tables is a provider."""

    currency: str = "USD"
    date: datetime.date
    """The day on which the prices were looked up."""
    source: str
    providers: dict[str, PriceProvider]

    @model_validator(mode="before")
    @classmethod
    def _gather_providers(cls, content: dict[str, Any]) -> dict[str, Any]:
        providers = {key: value for key, value in content.items() if isinstance(value, dict)}
        return {**{key: value for key, value in content.items() if key not in providers}, "providers": providers}

    def find(self, model: str, endpoint: str) -> ListedPrice | None:
        protocol, _, name = model.partition("/")
        for provider in self.providers.values():
            if provider.protocol == protocol and provider.serves(endpoint) and (price := provider.find(name)):
                return price
        return None


class FoundPrice(NamedTuple):
    """A price of a table."""

    price: ListedPrice
    currency: str
    source: str
    """The file, its source and its date."""


def read_price_table(path: Path) -> PriceTable:
    """Raises UsageError in one sentence."""
    try:
        return PriceTable.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part != "providers")
        raise UsageError(f"{path}: {where}: {first['msg']}; {SHIPPED / SHIPPED_TABLE} is an example") from None
    except ValueError as error:
        raise UsageError(f"{path}: is not a TOML file: {error}") from None


def find_listed_price(model: str, endpoint: str, folder: Path) -> FoundPrice | None:
    """The price of the teacher `provider/model` at an endpoint: in the user's table, next to the recipe in `folder` or in the
    working directory, else in the shipped table. Raises UsageError if a table cannot be used.
    """
    for path in (find_referenced_file(USER_TABLE, folder), SHIPPED / SHIPPED_TABLE):
        if path.is_file() and (price := (table := read_price_table(path)).find(model, endpoint)):
            shown = SHIPPED_TABLE if path == SHIPPED / SHIPPED_TABLE else str(path)
            return FoundPrice(price, table.currency, f"{shown}: {table.source}, {table.date}")
    return None
