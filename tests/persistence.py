"""Steps of persistence of this process: written down, or counted up to the one at which it kills itself."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


def watch_persistence(folder: Path) -> None:
    """Watch what is done below `folder`. With KILL_AT=n in the environment the process kills itself at the n-th step: when a
    file is opened for writing, or anything is renamed, removed or made. With STEPS=FILE it writes these steps down instead.

    Python tells its audit hooks of every such step before it is done."""
    kill_at, told = int(os.environ.get("KILL_AT", 0)), os.environ.get("STEPS")
    below, steps = str(folder), 0

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
