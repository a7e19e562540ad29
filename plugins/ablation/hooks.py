"""The ablation, the forecast and the selection of a run as sections of its report; the selection in the manifest, on the card and
as a gate.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from core.hooks import PageSection, RunHooks
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import Sample
from core.storage.atomic_files import read_record
from flows.report.pages import create_page_environment, list_round_values
from plugins.ablation.config import NAME, SelectionConfig, locate_result

TEMPLATES = Path(__file__).parent / "templates"
GATE_HINT = "or turn the gate off (`selection.gate = false`, which a finished run accepts with --resume)"


class AblationHooks(RunHooks):
    def finish_assessment(self, run: RunDir, manifest: RunManifest) -> None:
        from plugins.ablation.run_selection import measure_run_selection

        recipe = run.read_recipe()
        measured = recipe.section(SelectionConfig) is not None and manifest.counts.kept > 0
        manifest.put(NAME, measure_run_selection(run, recipe) if measured else None)

    def list_summary_lines(self, manifest: RunManifest) -> Sequence[tuple[str, str]]:
        from plugins.ablation.run_selection import summarize_selection
        from plugins.ablation.selection import SelectionRecord

        record = manifest.get(NAME, SelectionRecord)
        return [("selection", "; ".join(summarize_selection(record)))] if record else []

    def list_release_faults(self, manifest: RunManifest) -> Sequence[tuple[str, str]]:
        from plugins.ablation.selection import SelectionRecord

        record = manifest.get(NAME, SelectionRecord)
        return [(sentence, GATE_HINT) for sentence in record.refusals] if record else []

    def render_report(self, run: RunDir, manifest: RunManifest, shown: Sequence[Sample]) -> Sequence[PageSection]:
        return [*_render_ablation(run), *_render_forecast(run), *_render_selection(manifest)]


HOOKS = AblationHooks()


def _render_ablation(run: RunDir) -> list[PageSection]:
    from plugins.ablation.results import Ablation, describe_size, describe_step

    file = locate_result(run)
    if not file.is_file():
        return []
    found = read_record(file, Ablation)
    environment = create_page_environment(TEMPLATES)
    body = environment.get_template("report_section.html").render(
        found=found,
        describe_size=describe_size,
        describe_step=describe_step,
        list_round_values=list_round_values,
    )
    return [PageSection("ablation", "What each step bought", body)]


def _render_forecast(run: RunDir) -> list[PageSection]:
    from plugins.ablation.forecast import Forecast, format_gain, format_loss, locate_forecast

    file = locate_forecast(run)
    if not file.is_file():
        return []
    forecast = read_record(file, Forecast)
    curve = [(math.log(one.rows), one.passed) for one in forecast.curve]
    body = (
        create_page_environment(TEMPLATES)
        .get_template("forecast.html")
        .render(
            forecast=forecast,
            bands=[(x, passed.low, passed.high) for x, passed in curve],
            middles=[(x, passed.value) for x, passed in curve],
            ticks=[*(one.rows for one in forecast.measured), forecast.curve[-1].rows],
            log=math.log,
            format_gain=format_gain,
            format_loss=format_loss,
            list_round_values=list_round_values,
        )
    )
    return [PageSection("forecast", "What the next rows will bring", body)]


def _render_selection(manifest: RunManifest) -> list[PageSection]:
    from plugins.ablation.run_selection import format_step_cells, summarize_selection
    from plugins.ablation.selection import DRAWS, MEASURES, SelectionRecord

    record = manifest.get(NAME, SelectionRecord)
    if record is None:
        return []
    body = (
        create_page_environment(TEMPLATES)
        .get_template("selection.html")
        .render(
            record=record,
            sentences=summarize_selection(record),
            measures=MEASURES,
            draws=DRAWS,
            format_step_cells=format_step_cells,
        )
    )
    return [PageSection("selection", "What selection removed", body)]
