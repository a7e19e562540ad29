"""Produce and curate a run without Prefect, which takes longer to start than the tests of this module.

    python -m tests.support.produce_run RUNS_DIR RECIPE KEY=VALUE ...

With KILL_AT=n in the environment the process kills itself at the n-th step of persistence below RUNS_DIR; with STEPS=FILE
it records the steps instead (`tests.support.persistence`). With HASTE, an object store is published to every half second.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agents.planning.seeds import RunSeeds
from core.errors import INTERRUPTED_EXIT_CODE, StillhouseError
from core.runs.run_dir import RunDir, open_run
from flows.clean.run_curation import RunShortfalls, curate_run
from flows.data import run_storage
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run.shard_production import produce_and_curate
from flows.terminal.console import SESSION, UserInterrupt
from tests.support.persistence import watch_persistence


def produce_run(runs: str, recipe: str, settings: Sequence[str]) -> tuple[RunDir, RunShortfalls]:
    """Make or resume the run; the run and its shortfalls."""
    plan = load_recipe_plan(recipe, settings)
    storage = run_storage.open_run_storage(runs)
    sources = plan.sources
    storage.fetch_for_recipe(plan.recipe, sources)
    run = open_run(storage.runs, plan.recipe, sources, folder=plan.folder, resume=True)
    with storage.lock_run(run), run.lock():
        seeds = RunSeeds(plan, run.read_manifest().digest)
        return run, asyncio.run(produce_and_curate(run, plan, seeds, lambda: curate_run(run, plan.recipe, seeds)))


def main() -> int:
    runs, recipe, *settings = sys.argv[1:]
    watch_persistence(Path(runs))
    if "HASTE" in os.environ:
        from plugins.scale import lease  # only its tests ask for haste

        run_storage.PUBLISH_SECONDS = lease.HEARTBEAT_SECONDS = 0.5
    try:
        with SESSION.handle_interrupts():
            _, missing = produce_run(runs, recipe, settings)
    except (UserInterrupt, KeyboardInterrupt):
        return INTERRUPTED_EXIT_CODE
    except StillhouseError as error:
        SESSION.print_message(f"error: {error}")
        return error.exit_code
    for sentence in missing.sentences:
        SESSION.print_message(f"missing: {sentence}")
    return 1 if missing.sentences else 0


if __name__ == "__main__":
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # all work is done, and the interpreter takes a while to end
    sys.exit(code)
