"""Steps of persistence of this process: recorded, or counted up to a step at which the process kills itself."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


def watch_persistence(folder: Path) -> None:
    """Watch the steps below `folder`: a file is opened for writing, or anything is renamed, removed or made. With KILL_AT=n in
    the environment the process kills itself at the n-th step; with STEPS=FILE it records the steps in FILE instead.

    Python calls its audit hooks before each step.
    """
    kill_at, steps_file = int(os.environ.get("KILL_AT", 0)), os.environ.get("STEPS")
    below, steps = str(folder), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        writing = event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wax"
        if not (writing or event in STEPS) or not str(arguments[0]).startswith(below):
            return
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if steps_file:
            name = Path(str(arguments[0])).name
            os.write(log, f"{event} {name.replace('.partial', '')}\n".encode())

    log = os.open(steps_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if steps_file else 0
    sys.addaudithook(hook)
