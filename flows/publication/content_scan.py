"""Searches files for secrets and personal data before they are published. Sends nothing, and never prints what it found."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from core.config.filters import PersonalDataFilter
from core.errors import GateNotMet, UsageError
from core.installation import format_install_command
from core.secrets import find_secrets
from filters.chain.registry import FILTERS
from filters.rules.personal_data import find_personal_data
from flows.rows.dataset_rows import is_json_lines, is_parquet, read_batch_lines, read_dataset_batches

TEXT_ENDINGS = (".md", ".txt", ".json", ".jinja")
MOST_FOUND = 20
"""Places that are reported; the search ends there."""
HEX_DIGITS = re.compile(
    r"(?<![\w@.+-])(?=[0-9]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}|[0-9a-f]{16})(?![\w@.+-])"
)
"""Whole hashes, which no person's number is: digits in them are not searched. Digits alone may be a card's or an account's."""


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


def check_scan_requirements() -> None:
    """Raises UsageError if a package of the filter for personal data is missing."""
    entry = FILTERS["pii"]
    if missing := [module for module in entry.modules if find_spec(module) is None]:
        raise UsageError(
            f"the search for personal data before publishing needs the extra `{entry.extra}` ({', '.join(missing)} is missing): "
            f"run {format_install_command(str(entry.extra))}"
        )


def check_no_secrets(paths: Sequence[Path], stopped: Callable[[], None] = lambda: None) -> None:
    """Search files for secrets only, which needs no package. Raises GateNotMet naming each place, never the value."""
    found: list[FoundContent] = []
    for path in paths:
        for place, text in _read_texts(path):
            stopped()
            if (secrets := find_secrets(text)) and len(found) < MOST_FOUND:
                found.append(FoundContent(path.name, place, ", ".join(secrets), is_secret=True))
    if found:
        more = [f"and maybe more: {MOST_FOUND} are listed"] * (len(found) >= MOST_FOUND)
        raise GateNotMet("\n  ".join(["it has secrets; remove them and filter again:", *map(str, found), *more]))


class ContentScan:
    """A search over files. Texts that occur in several files are searched once if they are clean."""

    def __init__(self, allowed: Sequence[str] = (), stopped: Callable[[], None] = lambda: None) -> None:
        """`allowed` are texts that the user publishes knowingly, such as a contact. `stopped` may raise."""
        self._allowed = [text for text in allowed if text]
        self._stopped = stopped
        self._config = PersonalDataFilter(type="pii")
        self._clean: set[int] = set()

    def search(self, path: Path, name: str) -> Iterator[FoundContent]:
        """What is found in a file, which is called `name` in messages. Files that are no text are skipped."""
        for place, text in _read_texts(path):
            self._stopped()
            if (key := hash(text)) in self._clean:
                continue
            secrets = find_secrets(text)
            for allowed in self._allowed:
                text = text.replace(allowed, " ")
            plain = HEX_DIGITS.sub("", text)
            personal = [match.kind for match in find_personal_data(plain, self._config)]
            if not secrets and not personal:
                self._clean.add(key)
            if secrets:
                yield FoundContent(name, place, ", ".join(secrets), is_secret=True)
            if personal:
                counts = ", ".join(f"{kind} {personal.count(kind)}" for kind in dict.fromkeys(personal))
                yield FoundContent(name, place, counts, is_secret=False)


def _read_texts(path: Path) -> Iterator[tuple[str, str]]:
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
