"""A `stillhouse` command in this process, which kills itself at a given step of persistence.

    python -m tests.support.run_command WATCHED WORDS...

With KILL_AT=n in the environment the process kills itself at the n-th step below WATCHED; with STEPS=FILE it records the
steps instead (`tests.support.persistence`).
"""

import sys
from pathlib import Path

from flows import cli
from tests.support.persistence import watch_persistence

if __name__ == "__main__":
    _, watched, *words = sys.argv
    watch_persistence(Path(watched))
    sys.argv = ["stillhouse", *words]
    cli.main()
