"""JSON as RFC 8259 has it: no NaN, no Infinity, no key twice, numbers as they are written."""

import json
from decimal import Decimal
from typing import Any, NoReturn


def strict_json(text: str) -> Any:
    """The value of `text`, fractions as Decimal. Raises ValueError where it is no JSON, RecursionError where it is too deep."""
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_once)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found
