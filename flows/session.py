"""What the commands of one process share: the wish to stop, and where progress is told. Knows nothing of samples."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PLAIN_SECONDS = 5.0
"""Away from a terminal, a count that goes on is told at most this often."""


class Interrupted(BaseException):
    """The user asked to stop, and everything that was in flight is stored."""


class Session:
    """Progress goes to stderr: one live line on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.quiet = False
        self._told = 0.0
        self._live = False
        self._asking = False

    def note(self, text: str) -> None:
        """Say something once. Raises Interrupted where the run is to stop: long work that only tells can be stopped so."""
        if not self.quiet:
            self._clear()
            print(text, file=sys.stderr, flush=True)
        if self.stop.is_set():
            raise Interrupted

    def count(self, text: str) -> None:
        """Say how far something is; only the newest matters."""
        if self.quiet:
            return
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
            self._live = True
        elif time.monotonic() - self._told >= PLAIN_SECONDS:
            self._told = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[2K", end="", file=sys.stderr)
            self._live = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks to stop, a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        self._asking = True
        try:
            yield
        finally:
            self._asking = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def keep_asking(self) -> None:
        """Called first in a flow: Prefect has just taken SIGTERM for itself. Its own way is left to it in a deployment."""
        if self._asking and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.stop.set()
        self._clear()
        print("stopping: waiting for what is in flight; again to stop at once", file=sys.stderr)


SESSION = Session()
