"""The page of `stillhouse feature-gaps`. Measures nothing."""

from pathlib import Path

from core.storage.atomic_files import write_text
from flows.report.pages import create_page_environment
from plugins.features.feature_gaps_report import (
    MOST_SHOWN_FEATURES,
    SHOWN_PASSAGES,
    FeatureGapsReport,
    describe_random_gaps,
)

TEMPLATES = Path(__file__).parent / "templates"


def write_feature_gaps_page(path: Path, report: FeatureGapsReport) -> None:
    """Write a page that loads nothing from the network."""
    page = create_page_environment(TEMPLATES).get_template("feature_gaps.html")
    shown = report.gaps[:MOST_SHOWN_FEATURES]
    control = describe_random_gaps(report)
    write_text(path, page.render(report=report, shown=shown, passages=SHOWN_PASSAGES, control=control))
