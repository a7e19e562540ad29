"""How pages are written: templates, and what they can call. Text from teachers is untrusted, so it is escaped and plain."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flows.card import history_of, judge_words, mix_words, not_kept, outcome, seed_value
from flows.words import clock, cut, duration, number, one_line, percent, place_of, plain, plural

TEMPLATES = Path(__file__).with_name("templates")


def page_environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    own = (
        cell, clock, cut, duration, history_of, judge_words, mix_words, number, one_line, outcome, percent, place_of, plural,
        seed_value,
    )  # fmt: skip
    environment.filters.update({function.__name__: function for function in own})
    environment.globals["not_kept"] = not_kept
    return environment


def cell(text: str) -> str:
    """`text` inside a Markdown table or list: one line, no markup, no table borders."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", one_line(text, 400))
