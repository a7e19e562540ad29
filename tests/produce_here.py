"""Produce and curate a run without Prefect, whose start takes longer than everything that is tested here.

    python -m tests.produce_here RUNS_DIR RECIPE KEY=VALUE ...

With KILL_AT=n in the environment the process kills itself at the n-th step of persistence below RUNS_DIR; with STEPS=FILE
it writes these steps down instead (`tests.persistence`).
"""

import asyncio
import sys
from pathlib import Path

from agents.seeds import Seeds
from core.errors import INTERRUPTED, StillhouseError
from core.run import open_run
from flows.curated import curate
from flows.production import produce_and_curate
from flows.recipes import load, sources
from flows.session import SESSION, Interrupted
from tests.persistence import watch_persistence


def main() -> int:
    runs, recipe, *settings = sys.argv[1:]
    watch_persistence(Path(runs))
    plan = load(recipe, settings)
    try:
        run = open_run(Path(runs), plan.recipe, sources(plan), resume=True)
        with run.locked(), SESSION.interruptible():
            seeds = Seeds(plan, run.read_manifest().digest)
            missing = asyncio.run(produce_and_curate(run, plan, seeds, lambda: curate(run, plan.recipe, seeds)))
    except Interrupted:
        return INTERRUPTED
    except StillhouseError as error:
        SESSION.tell(f"error: {error}")
        return error.exit_code
    for sentence in missing.all:
        SESSION.tell(f"missing: {sentence}")
    return 1 if missing.all else 0


if __name__ == "__main__":
    sys.exit(main())
