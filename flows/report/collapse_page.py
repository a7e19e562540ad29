"""A comparison with real text as a page shows it, and the page of `stillhouse assess`. Measures nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from core.runs.collapse_assessment import CollapseAssessment
from core.runs.records import CollapseRecord, MetricRecord
from core.storage.atomic_files import write_text
from filters.collapse.tail_trend import find_lineage_trend
from flows.report.page_templates import create_page_environment
from flows.report.plots import list_trends


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
