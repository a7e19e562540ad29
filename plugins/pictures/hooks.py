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
from flows.terminal.text_format import escape_cell
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

    def render_card(self, manifest: RunManifest) -> Sequence[PageSection]:
        record = manifest.get(NAME, PicturesRecord)
        if not record:
            return []
        kinds = ", ".join(f"{escape_cell(name)} {count:,}" for name, count in record.operations.items())
        lines = [f"{record.questions:,} questions about {record.pictures:,} pictures, by kind: {kinds}."]
        if record.sources:
            files = f"The pictures are those of {record.sources:,} files or rows of whoever made the run, named in `source`."
            lines.append(
                f"{files} Nothing is known here of their rights, which the licence of this dataset does not cover."
            )
        else:
            lines.append(
                "The pictures were drawn for this dataset from generated data, so nobody else has rights in them."
            )
        return [PageSection(NAME, "Pictures", " ".join(lines))]


HOOKS = PictureHooks()
