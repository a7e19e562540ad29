"""Prompts: Markdown files by family and role, and the one function that fills them. Knows no teacher and no family.

A file is a conversation: each `## system`, `## user` or `## assistant` heading begins a message. `{{name}}` is filled
in one pass, so braces in JSON and text that comes from a teacher or a document are never read as a template.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from core.errors import UsageError
from core.sample import Message

PLACE = re.compile(r"\{\{(\w+)\}\}")
HEADING = re.compile(r"^## (system|user|assistant)\n", re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    name: str
    messages: tuple[Message, ...]

    @property
    def places(self) -> frozenset[str]:
        return frozenset(place for message in self.messages for place in PLACE.findall(message.content))

    @property
    def examples(self) -> tuple[str, ...]:
        """What the assistant says in it: the answers that a teacher is shown and must not copy."""
        return tuple(message.content for message in self.messages if message.role == "assistant")

    def fill(self, values: Mapping[str, str]) -> list[Message]:
        """The messages with every place filled; a value that the prompt has no place for is not used.

        Raises:
            UsageError: naming the places that no value is known for.
        """
        if unknown := sorted(self.places - set(values)):
            places = ", ".join(f"{{{{{place}}}}}" for place in unknown)
            raise UsageError(f"{self.name}: nothing is known for {places}; it may use {', '.join(sorted(values))}")

        def filled(text: str) -> str:
            return PLACE.sub(lambda match: values[match.group(1)], text)

        return [
            message.model_copy(update={"content": filled(message.content)})
            if PLACE.search(message.content)
            else message
            for message in self.messages
        ]


@cache
def load(family: str, role: str, own: Path | None = None) -> Prompt:
    """The prompt of `role` in `family`: the user's `own` folder's, the family's, or the one all families share.

    Raises:
        UsageError: naming the roles that are there.
    """
    folders = _folders(family, own)
    for folder in folders:
        file = folder / f"{role}.md"
        if file.is_file():
            name = str(file) if folder == own else f"prompts/{family}/{role}.md"
            return _parse(name, file.read_text(encoding="utf-8-sig"))
    there = sorted({file.name for folder in folders[:-1] for file in _markdown(folder)})
    where = f"{own}/{role}.md, prompts/{family}/{role}.md" if own else f"prompts/{family}/{role}.md"
    raise UsageError(f"{where}: no such prompt; there are {', '.join(there) or 'none'}")


def hashes(family: str, own: Path | None = None) -> dict[str, str]:
    """SHA-256 of every prompt that `family` can use, by file name: part of a run's identity."""
    names = ("own", family, "")[-len(_folders(family, own)) :]
    found = {
        f"{name}/{file.name}".lstrip("/"): file
        for name, folder in zip(names, _folders(family, own), strict=True)
        for file in _markdown(folder)
    }
    return {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in sorted(found.items())}


def _folders(family: str, own: Path | None) -> list[Traversable]:
    shared = files("prompts")
    return [*([own] if own else []), shared / family, shared]


def _markdown(folder: Traversable) -> list[Traversable]:
    return [file for file in folder.iterdir() if file.name.endswith(".md")] if folder.is_dir() else []


def _parse(name: str, text: str) -> Prompt:
    if strange := next(
        (line for line in text.splitlines() if re.match(r"##? ", line) and not HEADING.match(line + "\n")), None
    ):
        raise UsageError(f"{name}: {strange!r} begins no message; a heading is ## system, ## user or ## assistant")
    _intro, *parts = HEADING.split(text)
    if "user" not in parts[::2]:
        raise UsageError(f"{name}: has no message of the user; begin it with a line ## user")
    messages = [
        Message.model_validate({"role": role, "content": content.strip()})
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return Prompt(name, tuple(messages))
