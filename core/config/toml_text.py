"""Tables written as TOML. Knows no recipe."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, time
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


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
        pairs = ", ".join(f"{format_toml_key(key)} = {format_toml_value(inner)}" for key, inner in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    raise TypeError(f"{value!r}: TOML has texts, numbers, truth values, dates, lists and tables")


def format_toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else format_toml_value(str(key))


def _format_lines(table: Mapping[str, Any], where: str) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lists = {key: value for key, value in table.items() if _is_list_of_tables(value)}
    values = {key: value for key, value in table.items() if key not in inner and key not in lists}
    if where and (values or not table):
        yield f"\n[{where}]"
    yield from _format_pairs(values)
    for key, value in inner.items():
        yield from _format_lines(value, f"{where}.{format_toml_key(key)}".lstrip("."))
    for key, tables in lists.items():
        for entry in tables:
            yield f"\n[[{f'{where}.{format_toml_key(key)}'.lstrip('.')}]]"
            yield from _format_pairs(entry)


def _format_pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{format_toml_key(key)} = {format_toml_value(value)}"


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(entry, Mapping) for entry in value)
