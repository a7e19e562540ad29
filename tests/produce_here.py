"""Produce and curate a run without Prefect, whose start takes longer than everything that is tested here.

    python -m tests.produce_here RUNS_DIR RECIPE KEY=VALUE ...

With KILL_AT=n in the environment the process kills itself at the n-th step of persistence below RUNS_DIR; with STEPS=FILE
it writes these steps down instead (`tests.persistence`). With HASTE, what is in a depot is published every half second.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agents.seeds import Seeds
from core import lease
from core.errors import INTERRUPTED, StillhouseError
from core.run import RunDir, open_run
from flows import places
from flows.curated import curate
from flows.production import Shortfalls, produce_and_curate
from flows.recipes import load, sources
from flows.session import SESSION, Interrupted
from tests.persistence import watch_persistence


def produced(runs: str, recipe: str, settings: Sequence[str]) -> tuple[RunDir, Shortfalls]:
    """The run, gone on with if it is there, and what it lacks."""
    plan = load(recipe, settings)
    place = places.place_of(runs)
    place.fetch_for(plan)
    run = open_run(place.runs, plan.recipe, sources(plan), folder=plan.folder, resume=True)
    with place.working_on(run), run.locked():
        seeds = Seeds(plan, run.read_manifest().digest)
        return run, asyncio.run(produce_and_curate(run, plan, seeds, lambda: curate(run, plan.recipe, seeds)))


def main() -> int:
    runs, recipe, *settings = sys.argv[1:]
    watch_persistence(Path(runs))
    if "HASTE" in os.environ:
        places.PUBLISH_SECONDS = lease.BEAT_SECONDS = 0.5
    try:
        with SESSION.interruptible():
            _, missing = produced(runs, recipe, settings)
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
    except StillhouseError as error:
        SESSION.tell(f"error: {error}")
        return error.exit_code
    for sentence in missing.all:
        SESSION.tell(f"missing: {sentence}")
    return 1 if missing.all else 0


if __name__ == "__main__":
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # all is done, and Python takes a while to end
    sys.exit(code)
