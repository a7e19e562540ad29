"""Prompts: Markdown files by family and role, and the one function that fills them. Knows no teacher and no family.

A file is a conversation: each `## system`, `## user` or `## assistant` heading begins a message. `{{name}}` is filled
in one pass, so braces in JSON and text from a teacher or a document are never read as a template.
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

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
MAX_PROMPT, MAX_FILLED = 200_000, 4_000_000
"""Characters of a prompt file, and of a filled conversation: a long text in many placeholders multiplies."""
HEADING = re.compile(r"^## (system|user|assistant)\n", re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    name: str
    messages: tuple[Message, ...]

    @property
    def placeholders(self) -> frozenset[str]:
        return frozenset(name for message in self.messages for name in PLACEHOLDER.findall(message.content))

    @property
    def examples(self) -> tuple[str, ...]:
        """The assistant's messages: examples that a teacher sees and must not copy."""
        return tuple(message.content for message in self.messages if message.role == "assistant")

    def fill(self, values: Mapping[str, str]) -> list[Message]:
        """The messages with every placeholder filled; values without a placeholder are not used.

        Raises:
            UsageError: naming the placeholders without a value, or if the filled prompt is too long.
        """
        if unknown := sorted(self.placeholders - set(values)):
            names = ", ".join(f"{{{{{name}}}}}" for name in unknown)
            raise UsageError(f"{self.name}: nothing is known for {names}; it may use {', '.join(sorted(values))}")

        used = [name for message in self.messages for name in PLACEHOLDER.findall(message.content)]
        if (characters := sum(len(values[name]) for name in used)) > MAX_FILLED:
            raise UsageError(
                f"{self.name}: is {characters:,} characters long when filled, over {MAX_FILLED:,}; shorten the seed"
            )

        def fill_text(text: str) -> str:
            return PLACEHOLDER.sub(lambda match: values[match.group(1)], text)

        return [
            message.model_copy(update={"content": fill_text(message.content)})
            if PLACEHOLDER.search(message.content)
            else message
            for message in self.messages
        ]


@cache
def load_prompt(family: str, role: str, own: Path | None = None, installed: Path | None = None) -> Prompt:
    """The prompt of `role` in `family`: from the user's `own` folder, the family, or the prompts that all families share.
    `installed` is the folder of a family of an installed package, which may have a folder `shared` next to it.

    Raises:
        UsageError: naming the known prompts.
    """
    folders = _find_prompt_folders(family, own, installed)
    folder = next((folder for folder in folders if (folder / f"{role}.md").is_file()), None)
    if folder is None:
        known = sorted({file.name for folder in folders[:-1] for file in _list_markdown_files(folder)})
        where = f"{own}/{role}.md, prompts/{family}/{role}.md" if own else f"prompts/{family}/{role}.md"
        raise UsageError(f"{where}: no such prompt; known are {', '.join(known) or 'none'}")

    file = folder / f"{role}.md"
    name = str(file) if folder == own else f"prompts/{family}/{role}.md"
    with file.open(encoding="utf-8-sig") as opened:
        text = opened.read(MAX_PROMPT + 1)
    if len(text) > MAX_PROMPT:
        raise UsageError(f"{name}: has over {MAX_PROMPT:,} characters; shorten it")

    headings = [line for line in text.splitlines() if re.match(r"##? ", line)]
    if unknown := next((line for line in headings if not HEADING.match(line + "\n")), None):
        raise UsageError(f"{name}: {unknown!r} begins no message; a heading is ## system, ## user or ## assistant")
    _intro, *parts = HEADING.split(text)
    if "user" not in parts[::2]:
        raise UsageError(f"{name}: has no message of the user; begin it with a line ## user")
    messages = [
        Message.model_validate({"role": role, "content": content.strip()})
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return Prompt(name, tuple(messages))


def hash_prompts(family: str, own: Path | None = None, installed: Path | None = None) -> dict[str, str]:
    """SHA-256 of every prompt that `family` can use, by file name: part of a run's identity."""
    folders = _find_prompt_folders(family, own, installed)
    names = ("own", family, family, "")[-len(folders) :]
    prompts = {
        f"{name}/{file.name}".lstrip("/"): file
        for name, folder in zip(names, folders, strict=True)
        for file in _list_markdown_files(folder)
    }
    return {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in sorted(prompts.items())}


def read_prompt_files(family: str, own: Path | None = None, installed: Path | None = None) -> dict[str, bytes]:
    """The prompt files of a family, those in the user's `own` folder in the place of the family's."""
    folders = reversed(_find_prompt_folders(family, own, installed)[:-1])
    return {file.name: file.read_bytes() for folder in folders for file in _list_markdown_files(folder)}


def _find_prompt_folders(family: str, own: Path | None, installed: Path | None) -> list[Traversable]:
    shared = files(__name__)
    installed_shared = installed.parent / "shared" if installed else shared / "shared"
    return [*([own] if own else []), installed or shared / family, installed_shared, shared]


def _list_markdown_files(folder: Traversable) -> list[Traversable]:
    return (
        [file for file in folder.iterdir() if file.name.endswith(".md") and file.is_file()] if folder.is_dir() else []
    )
