"""What serving does in a run: sections of the report with the labels of decisions and the calibrated cascade of its student."""

import logging
from collections.abc import Sequence
from pathlib import Path

from core.errors import UsageError
from core.hooks import PageSection, RunHooks
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import Sample
from flows.report.pages import create_page_environment

logger = logging.getLogger("stillhouse")

TEMPLATES = Path(__file__).parent / "templates"


class ServingHooks(RunHooks):
    def render_report(self, run: RunDir, manifest: RunManifest, shown: Sequence[Sample]) -> Sequence[PageSection]:
        return [*_render_labels(run), *_render_cascade(run, manifest)]


HOOKS = ServingHooks()


def _render_labels(run: RunDir) -> list[PageSection]:
    from plugins.serving.decisions.label_balance import summarize_labels
    from plugins.serving.decisions.questions import parse_questions

    recipe = run.read_recipe()
    if recipe.family != "decisions" or not (found := summarize_labels(run, parse_questions(recipe.task["questions"]))):
        return []
    template = create_page_environment(TEMPLATES).get_template("labels.html")
    return [PageSection("labels", "Labels and votes", template.render(questions=found))]


def _render_cascade(run: RunDir, manifest: RunManifest) -> list[PageSection]:
    from plugins.serving.cascade.cascade_plot import build_cascade_view
    from plugins.serving.cascade.routing_result import ROUTING_FILE, read_routing_result

    file = run.student / ROUTING_FILE
    if not manifest.student or not file.is_file():
        return []
    try:
        cascade = build_cascade_view(read_routing_result(file))
    except UsageError as error:
        logger.warning("the report omits the routing results: %s", error)
        return []
    template = create_page_environment(TEMPLATES).get_template("routing.html")
    return [PageSection("routing", "Student first, teacher when needed", template.render(cascade=cascade))]
