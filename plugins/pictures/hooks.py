"""What pictures do in a run: their statistics in the manifest, and a gallery in the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.hooks import PageSection, RunHooks
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import Sample
from flows.data.curated_run import read_finished_samples
from flows.report.pages import create_page_environment
from plugins.pictures.gallery import build_gallery
from plugins.pictures.statistics import PicturesRecord, measure_pictures

NAME = "pictures"
TEMPLATES = Path(__file__).parent / "templates"


class PictureHooks(RunHooks):
    async def find_recipe_facts(self, plan: Any, *, live: bool) -> Mapping[str, Sequence[str]]:
        if not live:
            return {}
        from plugins.pictures.sight_probe import probe_sight

        return await probe_sight(plan)

    def finish_package(self, run: RunDir, manifest: RunManifest) -> None:
        manifest.put(NAME, measure_pictures(read_finished_samples(run)) if run.images.is_dir() else None)

    def render_report(self, run: RunDir, manifest: RunManifest, shown: Sequence[Sample]) -> Sequence[PageSection]:
        gallery = build_gallery(run, shown) if run.images.is_dir() else []
        if not gallery:
            return []
        template = create_page_environment(TEMPLATES).get_template("report_section.html")
        body = template.render(p=manifest.get(NAME, PicturesRecord), gallery=gallery)
        return [PageSection("pictures", "Pictures", body)]


HOOKS = PictureHooks()
