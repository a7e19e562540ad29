"""Searches the files of a release for secrets. Never prints what it found."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import GateNotMet
from core.secrets import find_secrets
from flows.rows.dataset_rows import is_json_lines, is_parquet, read_batch_lines, read_dataset_batches

TEXT_ENDINGS = (".md", ".txt", ".json", ".jinja")
MOST_FOUND = 20
"""Places that are reported; the search ends there."""


class FoundContent(NamedTuple):
    """A place that must not be published."""

    file: str
    place: str
    """Its row or line."""
    what: str
    """Kinds and numbers, never the value."""
    is_secret: bool

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.what}"


def check_no_secrets(paths: Sequence[Path], stopped: Callable[[], None] = lambda: None) -> None:
    """Raises GateNotMet naming each place, never the value."""
    found: list[FoundContent] = []
    for path in paths:
        for place, text in read_texts(path):
            stopped()
            if (secrets := find_secrets(text)) and len(found) < MOST_FOUND:
                found.append(FoundContent(path.name, place, ", ".join(secrets), is_secret=True))
    if found:
        more = [f"and maybe more: {MOST_FOUND} are listed"] * (len(found) >= MOST_FOUND)
        raise GateNotMet("\n  ".join(["it has secrets; remove them and filter again:", *map(str, found), *more]))


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """The texts of a file, each with its place."""
    if is_parquet(path) or is_json_lines(path):
        for batch in read_dataset_batches([path]):
            for line in read_batch_lines(batch):
                yield f"row {line.number}", "\n".join(text for _, text in _list_values(line.row or {}, ""))
    elif path.suffix == ".json":
        yield from _list_values(json.loads(path.read_text(encoding="utf-8")), "")
    elif path.suffix in TEXT_ENDINGS:
        for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            yield f"line {number}", text


def _list_values(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Each text in a JSON value, with the keys that lead to it; keys are texts too."""
    if isinstance(value, str):
        yield f"key {where[:80] or 'at the top'}", value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"a name in {where or 'the top'}", key
            yield from _list_values(inner, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _list_values(inner, f"{where}.{number}".removeprefix("."))
