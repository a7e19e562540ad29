"""Tables written as TOML, and read from TOML of unknown origin. Knows no recipe.

Not tomli-w: it writes each item of a list on a line of its own and has no function for one value, so it could replace 20 of the
45 lines that write, and a resolved recipe would have three times as many lines.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, time
from typing import Any

MAX_DEPTH = 64
"""Levels of tables and lists; recipes have five. A dotted key takes tomllib the square of its parts: 16,000 take 3 s."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_KEY_PART = r"""(?:(?<![A-Za-z0-9_-])[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"{_KEY_PART}(?:\.[ \t]*+{_KEY_PART}){{{MAX_DEPTH}}}")


def parse_toml(text: str) -> dict[str, Any]:
    """Raises TOMLDecodeError for text that is not TOML, or has more than `MAX_DEPTH` levels."""
    too_deep = tomllib.TOMLDecodeError(f"it has more than {MAX_DEPTH} levels of tables, lists or parts of a key")
    if _LONG_KEY.search(text):
        raise too_deep
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise too_deep from None
    except ValueError as error:  # also a number of more digits than Python reads
        raise tomllib.TOMLDecodeError(str(error)) from None
    level: list[Any] = [tables]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, dict | list)]
    if level:
        raise too_deep
    return tables


def format_toml(table: Mapping[str, Any]) -> str:
    """`table` as the text of a TOML file: values first, then tables and lists of tables.

    Raises:
        TypeError: for a value that TOML cannot express, such as None.
    """
    return "\n".join(_format_lines(table, "")).strip() + "\n"


def format_toml_value(value: Any) -> str:
    """A value on one line. Raises TypeError as `format_toml`."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(format_toml_value, value)) + "]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_format_toml_key(key)} = {format_toml_value(inner)}" for key, inner in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    raise TypeError(f"{value!r}: TOML has texts, numbers, truth values, dates, lists and tables")


def _format_toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else format_toml_value(str(key))


def _format_lines(table: Mapping[str, Any], where: str) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lists = {key: value for key, value in table.items() if _is_list_of_tables(value)}
    values = {key: value for key, value in table.items() if key not in inner and key not in lists}
    if where and (values or not table):
        yield f"\n[{where}]"
    yield from _format_pairs(values)
    for key, value in inner.items():
        yield from _format_lines(value, f"{where}.{_format_toml_key(key)}".lstrip("."))
    for key, tables in lists.items():
        for entry in tables:
            yield f"\n[[{f'{where}.{_format_toml_key(key)}'.lstrip('.')}]]"
            yield from _format_pairs(entry)


def _format_pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{_format_toml_key(key)} = {format_toml_value(value)}"


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(entry, Mapping) for entry in value)
