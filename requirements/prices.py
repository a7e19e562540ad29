"""The shipped table of prices, from the package genai-prices (MIT): `python requirements/prices.py > data/prices.toml`, in an
environment with that package. Stillhouse itself does not need it.
"""

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple


class PricedEndpoint(NamedTuple):
    """An endpoint of the table, and its name in genai-prices."""

    name: str
    protocol: str
    base_url: str
    known_as: str
    models: str = ""
    """What the names of its models begin with, as a pattern."""


ENDPOINTS = (
    PricedEndpoint("openai", "openai", "https://api.openai.com", "openai", "gpt-|o[134]|chatgpt-"),
    PricedEndpoint("anthropic", "anthropic", "https://api.anthropic.com", "anthropic", "claude-"),
    PricedEndpoint("gemini", "gemini", "https://generativelanguage.googleapis.com", "google", "gemini-|gemma-"),
    PricedEndpoint("mistral", "openai", "https://api.mistral.ai", "mistral"),
    PricedEndpoint("deepseek", "openai", "https://api.deepseek.com", "deepseek"),
    PricedEndpoint("groq", "openai", "https://api.groq.com", "groq"),
    PricedEndpoint("together", "openai", "https://api.together.xyz", "together"),
    PricedEndpoint("fireworks", "openai", "https://api.fireworks.ai", "fireworks"),
    PricedEndpoint("cerebras", "openai", "https://api.cerebras.ai", "cerebras"),
)
"""OpenRouter is not included: its price depends on the host that it chooses for a call."""
NO_TEXT = re.compile(
    r"audio|realtime|tts|whisper|transcribe|image|embed|moderation|guard|search|live|computer|ocr|deep-research"
)
"""Models that are not teachers, or are paid by other units."""
KEYS = {
    "input_price": "input_mtok",
    "output_price": "output_mtok",
    "cached_price": "cache_read_mtok",
    "cache_write_price": "cache_write_mtok",
}
HEAD = """\
# Prices of teachers, per million tokens, of prompts below the first threshold of a tiered price (200,000 tokens). A price of the
# recipe wins (teachers.NAME.input_price), then that in a prices.toml of this form next to the recipe or in the working
# directory, then this file. Written by requirements/prices.py; prices change, so check those that matter to you.
# The prices are those of genai-prices: MIT License, Copyright (c) Pydantic Services Inc. 2025 to present.
"""


def read_price(model: Any, today: date) -> dict[str, float] | None:
    """The prices of a model today, by key; None without a price of prompts and replies."""
    price = model.prices
    if isinstance(price, list):
        valid = [one for one in price if _find_start(one) <= today]
        newest = max(_find_start(one) for one in valid)
        # Prices that differ by the time of day: the highest, so that a budget holds at any time.
        price = max((one.prices for one in valid if _find_start(one) == newest), key=_read_input_price)
    found = {}
    for key, name in KEYS.items():
        value = getattr(price, name, None)
        value = getattr(value, "base", value)
        if value is not None:
            found[key] = float(value)
    return found if {"input_price", "output_price"} <= found.keys() else None


def _find_start(price: Any) -> date:
    """The date from which a price is valid."""
    return getattr(price.constraint, "start_date", None) or date.min


def _read_input_price(prices: Any) -> float:
    value = getattr(prices, "input_mtok", None)
    return float(getattr(value, "base", value) or 0)


def list_patterns(clause: Any) -> Iterator[str]:
    """The names that a model goes by, as patterns of shells. Regular expressions are read if they are a name and a date."""
    for part in getattr(clause, "or_", [clause]):
        kind = type(part).__name__
        if kind == "ClauseEquals":
            yield part.equals
        elif kind == "ClauseStartsWith":
            yield part.starts_with + "*"
        elif kind == "ClauseContains":
            yield f"*{part.contains}*"
        elif kind == "ClauseEndsWith":
            yield "*" + part.ends_with
        elif kind == "ClauseRegex" and (dated := re.fullmatch(r"\^([\w.-]+)\\d\{(\d+)\}\$", part.regex)):
            yield dated[1] + "[0-9]" * int(dated[2])


def format_table(today: date) -> str:
    providers = {provider.id: provider for provider in import_module("genai_prices.data").providers}
    source = f"genai-prices {version('genai-prices')} (MIT), https://github.com/pydantic/genai-prices"
    lines = [HEAD, f'currency = "USD"\ndate = {today}\nsource = {json.dumps(source)}']
    for endpoint in ENDPOINTS:
        lines.append(f'\n[{endpoint.name}]\nprotocol = "{endpoint.protocol}"\nbase_url = "{endpoint.base_url}"')
        lines.append(f"\n[{endpoint.name}.models]")
        for model in sorted(providers[endpoint.known_as].models, key=lambda model: model.id):
            price = read_price(model, today)
            if price is None or NO_TEXT.search(model.id) or not re.match(endpoint.models, model.id):
                continue
            keys = ", ".join(f"{key} = {value:g}" for key, value in price.items())
            lines += [f"{json.dumps(name)} = {{ {keys} }}" for name in dict.fromkeys(list_patterns(model.match))]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(format_table(datetime.now(UTC).date()) + "\n")
