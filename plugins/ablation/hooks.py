"""The ablation of a run as a section of its report."""

from collections.abc import Sequence
from pathlib import Path

from core.hooks import PageSection, RunHooks
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import Sample
from core.storage.atomic_files import read_record
from flows.report.pages import create_page_environment, list_round_values

TEMPLATES = Path(__file__).parent / "templates"


class AblationHooks(RunHooks):
    def render_report(self, run: RunDir, manifest: RunManifest, shown: Sequence[Sample]) -> Sequence[PageSection]:
        from plugins.ablation.ablation import locate_result
        from plugins.ablation.arms import ARMS
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
            names={letter: arm.name for letter, arm in ARMS.items()},
        )
        return [PageSection("ablation", "What each step bought", body)]
