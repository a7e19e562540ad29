"""The environment of all templates: cards for the terminal, Markdown documents and pages; and the sentences that they share.

Text from teachers is untrusted: everywhere it loses the characters that control a terminal; a page escapes it.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flows.terminal import text_format
from flows.terminal.text_format import replace_unsafe_characters

SHARED_TEMPLATES = Path(__file__).with_name("templates")


@cache
def create_environment(
    *folders: Path, filters: tuple[Callable[..., str], ...] = (), pages: bool = False
) -> Environment:
    """Of the templates in `folders`, before those that all share. `filters` are named as their functions are, next to those of
    `text_format`, and can be called too. `pages` are HTML.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, SHARED_TEMPLATES]),
        autoescape=pages,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: replace_unsafe_characters(value) if type(value) is str else value,
    )
    shared = [value for value in vars(text_format).values() if getattr(value, "__module__", "") == text_format.__name__]
    named = {one.__name__: one for one in (*shared, text_format.format_count, *filters)}
    environment.filters.update(named)
    environment.globals.update(named, say=say)
    return environment


def say(name: str, *facts: Any) -> str:
    """The sentence `name` of `words.txt` about these facts, on one line, without a full stop; empty for nothing."""
    return " ".join(str(getattr(create_environment().get_template("words.txt").module, name)(*facts)).split())
