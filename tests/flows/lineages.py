"""Whole runs but for their students, in this process: Prefect takes longer to start than all of it."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from agents.seeds import Seeds
from core.release import Lineage, releases_of
from core.run import RunDir
from flows.curated import kept_rows
from flows.pipeline import assess, curate, finish, opened, package
from flows.places import place_of
from flows.production import produce_and_curate
from flows.releasing import Released, release_run

OFF = "collapse.gate=false"
SMALL = ("samples=24", "shard_size=12")


def made(runs: Path | str, *settings: str, resume: bool = False, recipe: str = "smoke") -> RunDir:
    """A run of the recipe with the scripted teacher, from seeds to report."""
    with opened(recipe, [*SMALL, *settings], place_of(str(runs)), resume=resume) as job:
        seeds = Seeds(job.plan, job.manifest.digest)
        short = asyncio.run(produce_and_curate(job.run, job.plan, seeds, lambda: curate.fn(job, seeds)))
        job.manifest.shortfalls = short.all
        kept = kept_rows(job.run)
        assess.fn(job, kept)
        package(job, kept)
        finish(job)
    return job.run


def released(runs: Path, *settings: str) -> Released:
    return release_run(made(runs, OFF, *settings))


def lineage(runs: Path) -> Lineage:
    return Lineage(releases_of(runs) / "smoke")


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
