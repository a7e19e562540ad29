"""A command of the house in this process, which dies at a step of persistence that it is told.

    python -m tests.release_here WATCHED WORDS...

With KILL_AT=n in the environment the process kills itself at the n-th step below WATCHED; with STEPS=FILE it writes these
steps down instead (`tests.persistence`).
"""

import sys
from pathlib import Path

from flows import cli
from tests.persistence import watch_persistence

if __name__ == "__main__":
    _, watched, *words = sys.argv
    watch_persistence(Path(watched))
    sys.argv = ["stillhouse", *words]
    cli.main()
