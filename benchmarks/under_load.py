"""A command next to busy processes: whether it still does what it should on a machine that has other work.

python -m benchmarks.under_load [--processes 4] make test
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def keep_busy(processes: int) -> Iterator[None]:
    """That number of processes, each of which takes all of a core that it gets."""
    with ExitStack() as stack:
        for _ in range(processes):
            child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(child.wait)
            stack.callback(child.kill)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    began = time.monotonic()
    with keep_busy(options.processes):
        code = subprocess.run(options.command, check=False).returncode
    sys.stderr.write(f"{time.monotonic() - began:.0f} s next to {options.processes} busy processes; exit code {code}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
