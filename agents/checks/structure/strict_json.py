"""JSON as RFC 8259 has it: no NaN, no Infinity, no key twice, numbers as they are written."""

import json
from decimal import Decimal
from typing import Any, NoReturn


def parse_strict_json(text: str) -> Any:
    """The value of `text`, fractions as Decimal. Raises ValueError if it is not JSON, RecursionError if it is too deep."""
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        raise ValueError("a key comes twice")
    return whole
