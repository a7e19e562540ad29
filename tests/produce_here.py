"""Produce and curate a run without Prefect, whose start takes longer than everything that is tested here.

    python -m tests.produce_here RUNS_DIR RECIPE KEY=VALUE ...

With KILL_AT=n in the environment the process kills itself at the n-th step of persistence: when a file below RUNS_DIR is
opened for writing, or anything there is renamed, removed or made. With STEPS=FILE it writes these steps down instead.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from agents.seeds import Seeds
from core.errors import INTERRUPTED, StillhouseError
from core.run import open_run
from flows.curated import curate
from flows.production import produce_and_curate
from flows.recipes import load, sources
from flows.session import SESSION, Interrupted

STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


def watch_persistence(runs: Path) -> None:
    """Python tells its audit hooks of every such step before it is done."""
    kill_at, told = int(os.environ.get("KILL_AT", 0)), os.environ.get("STEPS")
    below, steps = str(runs), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        writing = event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wax"
        if not (writing or event in STEPS) or not str(arguments[0]).startswith(below):
            return
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if told:
            name = Path(str(arguments[0])).name
            os.write(log, f"{event} {name.replace('.partial', '')}\n".encode())

    log = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if told else 0
    sys.addaudithook(hook)


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
