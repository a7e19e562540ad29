"""Whole runs without students, in this process: Prefect takes longer to start than such a run."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from agents.planning.seeds import RunSeeds
from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from core.runs.lineage import Lineage
from core.runs.releases import locate_releases
from core.runs.run_dir import RunDir
from flows.data.curated_run import read_kept_rows
from flows.release.release_creation import CreatedRelease, create_release
from flows.run.dataset_stages import finish_run, package_samples
from flows.run.pipeline import open_run_context, run_assess_stage, run_curate_stage
from flows.run.run_preparation import prepare_run
from flows.run.shard_production import produce_and_curate

OFF = "collapse.gate=false"
REAL = f"collapse.reference={PROJECT / ENGLISH_REFERENCE}"
"""Compared with real text instead of itself."""
SMALL = ("samples=24", "shard_size=12")


def make_run(runs: Path | str, *settings: str, resume: bool = False, recipe: str = "smoke") -> RunDir:
    """A run of the recipe with the scripted teacher, from seeds to report."""
    with open_run_context(prepare_run(recipe, [*SMALL, *settings], str(runs), resume=resume)) as context:
        seeds = RunSeeds(context.plan, context.manifest.digest)
        short = asyncio.run(
            produce_and_curate(context.run, context.plan, seeds, lambda: run_curate_stage.fn(context, seeds))
        )
        context.manifest.shortfalls = short.sentences
        kept = read_kept_rows(context.run)
        run_assess_stage.fn(context, kept)
        package_samples(context, kept)
        finish_run(context)
    return context.run


def make_release(runs: Path, *settings: str) -> CreatedRelease:
    return create_release(make_run(runs, OFF, *settings))


def lineage(runs: Path) -> Lineage:
    return Lineage(locate_releases(runs) / "smoke")


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
