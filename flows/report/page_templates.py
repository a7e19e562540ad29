"""The environment of page templates, with their filters. Text from teachers is untrusted: it is escaped and loses markup."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup, escape

from flows.report.plots import LinearScale, create_plot_area
from flows.terminal.sample_history import collect_revisions, describe_call, format_sample_outcome, format_seed_value
from flows.terminal.template_environment import create_environment
from flows.terminal.text_format import replace_unsafe_characters

TEMPLATE_FOLDER = Path(__file__).with_name("templates")


@cache
def create_page_environment(own: Path = TEMPLATE_FOLDER) -> Environment:
    """The environment of all pages. `own` is searched before the shared templates."""
    functions = (collect_revisions, describe_call, format_sample_outcome, format_seed_value, mark_code)
    environment = create_environment(own, TEMPLATE_FOLDER, filters=functions, pages=True)
    environment.globals.update(LinearScale=LinearScale, create_plot_area=create_plot_area, zip=zip)
    return environment


def mark_code(text: str) -> Markup:
    """`text` for a page; text in backticks becomes code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(replace_unsafe_characters(text)))))
