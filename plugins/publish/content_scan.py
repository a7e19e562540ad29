"""Searches files for secrets and personal data before they are published. Sends nothing, and never prints what it found."""

import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from core.config.filters import PersonalDataFilter
from core.errors import UsageError
from core.installation import format_install_command
from core.secrets import find_secrets
from filters.chain.registry import FILTERS
from filters.rules.personal_data import find_personal_data
from flows.release.secret_search import FoundContent, read_texts

HEX_DIGITS = re.compile(
    r"(?<![\w@.+-])(?=[0-9]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}|[0-9a-f]{16})(?![\w@.+-])"
)
"""Whole hashes, which no person's number is: digits in them are not searched. Digits alone may be a card's or an account's."""


def check_scan_requirements() -> None:
    """Raises UsageError if a package of the filter for personal data is missing."""
    entry = FILTERS["pii"]
    if missing := [module for module in entry.modules if find_spec(module) is None]:
        raise UsageError(
            f"the search for personal data before publishing needs the extra `{entry.extra}` ({', '.join(missing)} is missing): "
            f"run {format_install_command(str(entry.extra))}"
        )


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
        for place, text in read_texts(path):
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
