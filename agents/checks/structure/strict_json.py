"""JSON as RFC 8259 has it: no NaN, no Infinity, no key twice, numbers as they are written."""

import json
from decimal import Decimal
from typing import Any, NoReturn


def parse_strict_json(text: str) -> Any:
    """The value of `text`, fractions as Decimal. Raises ValueError if it is not JSON, RecursionError if it is too deep."""
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)


def is_same_json(left: str, right: str) -> bool:
    """Whether two texts are the same JSON value: the order of keys is ignored, 30 equals 30.0, true differs from 1. A text
    with a duplicate key, NaN or Infinity is not JSON.
    """
    try:
        return bool(_tag_booleans(parse_strict_json(left)) == _tag_booleans(parse_strict_json(right)))
    except (ValueError, RecursionError):
        return False


def _tag_booleans(value: Any) -> Any:
    """`value` such that truth values, which Python takes for numbers, equal only themselves."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return {key: _tag_booleans(inner) for key, inner in value.items()}
    return [_tag_booleans(inner) for inner in value] if isinstance(value, list) else value


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        raise ValueError("a key comes twice")
    return whole
