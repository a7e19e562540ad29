"""The environment of page templates, what a page shows of a comparison, and the page of `stillhouse assess`.

Text from teachers is untrusted: it is escaped and loses markup. Measures nothing.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment
from markupsafe import Markup, escape

from core.runs.records import CollapseRecord, MetricRecord
from core.runs.verdict_words import CollapseAssessment
from core.storage.atomic_files import write_text
from filters.collapse.tail_trend import find_lineage_trend
from flows.report.plots import LinearScale, create_plot_area, list_trends
from flows.terminal.sample_history import collect_revisions, describe_call, format_sample_outcome, format_seed_value
from flows.terminal.text_format import create_environment, replace_unsafe_characters

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


class ComparisonView(NamedTuple):
    """One comparison with everything that a page shows of it."""

    record: CollapseRecord
    trends: dict[str, dict[str, MetricRecord]]
    """By metric and generation; empty for a first generation."""
    trend: str


def build_comparison_view(record: CollapseRecord, before: Mapping[str, CollapseRecord] | None = None) -> ComparisonView:
    """`before` has the comparisons of the earlier generations by name, oldest first."""
    real = record.reference is not None
    comparable = {name: earlier for name, earlier in (before or {}).items() if (earlier.reference is not None) == real}
    generations = {**comparable, "this": record}
    trend = find_lineage_trend(list(generations.values()))
    return ComparisonView(record, list_trends(generations) if comparable else {}, str(trend or ""))


def write_assessment_page(path: Path, source: Path, assessment: CollapseAssessment) -> None:
    """Write a page that loads nothing from the network."""
    records = [record for record in (assessment.collapse, assessment.parent) if record]
    page = create_page_environment().get_template("assessment.html")
    shown = list(map(build_comparison_view, records))
    write_text(path, page.render(source=str(source), assessment=assessment, shown=shown))
