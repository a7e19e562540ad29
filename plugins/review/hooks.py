"""What reviews do in a run: decisions that curation applies, the record of them, and their places in report and cards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.hooks import LabeledConversation, Override, Overrides, PageSection, RunHooks
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import Sample
from flows.report.pages import create_page_environment
from flows.terminal.text_format import escape_cell, format_count
from plugins.review.corrected_rows import correct_row
from plugins.review.log import ReviewLog, hash_decisions, locate_reviews, read_reviews
from plugins.review.summary import ReviewSummary, summarize_reviews

NAME = "review"
TEMPLATES = Path(__file__).parent / "templates"
CARD_NOTE = (
    "What a person kept or corrected is in the dataset whatever a filter found, and what a person dropped is not. An error is a "
    "sample that a person dropped or corrected; the interval is exact, 95 %, and assumes that reviewers are right."
)


class _ReviewOverride(Override):
    def correct_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return correct_row(row, self.edited or ())
        except (KeyError, StopIteration) as error:
            raise ValueError(str(error)) from None


def _build_overrides(log: ReviewLog) -> Overrides:
    return Overrides({
        name: _ReviewOverride(
            keeps=entry.decision != "drop", edited=None if entry.edited is None else tuple(entry.edited), note=entry.note
        )
        for name, entry in log.list_decided()
    })  # fmt: skip


class ReviewHooks(RunHooks):
    def find_overrides(self, run: RunDir) -> Overrides:
        return _build_overrides(read_reviews(locate_reviews(run.path)))

    def find_row_overrides(self, file: Path) -> Overrides:
        return _build_overrides(read_reviews(locate_reviews(file)))

    def read_labels(self, file: Path) -> Sequence[LabeledConversation]:
        return [LabeledConversation(*label) for label in read_reviews(file).list_labels()]

    def finish_curation(self, run: RunDir, manifest: RunManifest) -> None:
        summary = summarize_reviews(read_reviews(locate_reviews(run.path)))
        manifest.put(NAME, summary and summary.without_names())

    def list_summary_lines(self, manifest: RunManifest) -> Sequence[tuple[str, str]]:
        summary = manifest.get(NAME, ReviewSummary)
        return [("reviews", "; ".join(summary.sentences))] if summary else []

    def describe_people(self, manifest: RunManifest) -> str:
        summary = manifest.get(NAME, ReviewSummary)
        if not summary or not summary.reviewed:
            return ""
        return (
            f"people reviewed {format_count(summary.reviewed, 'sample')} of the run: {summary.dropped:,} dropped, "
            f"{summary.corrected:,} corrected, {summary.rescued:,} kept that checks or filters had dropped"
        )

    def render_report(self, run: RunDir, manifest: RunManifest, shown: Sequence[Sample]) -> Sequence[PageSection]:
        summary, applied = summarize_reviews(read_reviews(locate_reviews(run.path))), manifest.get(NAME, ReviewSummary)
        if summary is None:
            return []
        stale = summary.digest != (applied.digest if applied else hash_decisions({}))
        template = create_page_environment(TEMPLATES).get_template("report_section.html")
        body = template.render(reviews=summary, stale_reviews=stale, run=manifest.run)
        return [PageSection("review", "Review by people", body)]

    def render_card(self, manifest: RunManifest) -> Sequence[PageSection]:
        summary = manifest.get(NAME, ReviewSummary)
        if not summary or not summary.reviewed:
            return []
        lines = [f"- {escape_cell(one[:1].upper() + one[1:])}." for one in summary.sentences]
        return [PageSection("review", "Review by people", "\n".join([*lines, "", CARD_NOTE]))]


HOOKS = ReviewHooks()
