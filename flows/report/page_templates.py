"""The environment of page templates, with their filters. Text from teachers is untrusted: it is escaped and loses markup."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from flows.terminal.run_summary import format_judge_record, format_not_kept_counts
from flows.terminal.sample_history import collect_revisions, describe_call, format_sample_outcome, format_seed_value
from flows.terminal.text_format import (
    describe_generator,
    format_count,
    format_duration,
    format_number,
    format_one_line,
    format_percent,
    format_time,
    format_token_usage,
    replace_unsafe_characters,
    truncate_text,
)

TEMPLATE_FOLDER = Path(__file__).with_name("templates")


@cache
def create_page_environment(own: Path = TEMPLATE_FOLDER) -> Environment:
    """The environment of all pages. `own` is searched before the shared templates."""
    environment = Environment(
        loader=FileSystemLoader([own, TEMPLATE_FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: replace_unsafe_characters(value) if type(value) is str else value,
    )
    functions = (
        collect_revisions, describe_call, describe_generator, format_count, format_duration, format_judge_record, format_number,
        format_one_line, format_percent, format_sample_outcome, format_seed_value, format_time, mark_code, truncate_text,
    )  # fmt: skip
    environment.filters.update({function.__name__: function for function in functions})
    environment.globals.update(
        {function.__name__: function for function in (format_not_kept_counts, format_token_usage)}
    )
    return environment


def mark_code(text: str) -> Markup:
    """`text` for a page; text in backticks becomes code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(replace_unsafe_characters(text)))))
