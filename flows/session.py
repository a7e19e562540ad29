"""What the commands of one process share: the wish to stop, and where progress is told. Knows nothing of samples."""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

LIVE_SECONDS, PLAIN_SECONDS = 0.2, 5.0
"""A count that goes on is told at most this often: on a terminal, and elsewhere."""


class Far(NamedTuple):
    """How far something is, put into words and numbers only when they are wanted."""

    told: Callable[[], str]
    share: Callable[[], float]
    """Of what is to be done, from 0 to 1."""


def speaks() -> bool:
    """Whether this process is the one that speaks, of those that `torchrun` started; alone, it is."""
    return os.environ.get("RANK", "0") == "0"


class Interrupted(BaseException):
    """The user asked to stop, and everything that was in flight is stored."""


class Session:
    """Progress goes to stderr: one live line on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.quiet = False
        self.far: Far | None = None
        """How far the longest work is, for whoever else shows it."""
        self._told = 0.0
        self._live = False
        self._asking = False

    def note(self, text: str) -> None:
        """Say something once. Raises Interrupted where the run is to stop: long work that only tells can be stopped so."""
        self.tell(text)
        if self.stop.is_set():
            raise Interrupted

    def tell(self, text: str) -> None:
        """Say something once."""
        if not self.quiet:
            self._clear()
            print(text, file=sys.stderr, flush=True)

    def count(self, told: Callable[[], str]) -> None:
        """Say how far something is, now and then; only the newest matters, and it is put into words only when it is said."""
        live = sys.stderr.isatty()
        if self.quiet or time.monotonic() - self._told < (LIVE_SECONDS if live else PLAIN_SECONDS):
            return
        self._told = time.monotonic()
        if live:
            text = told()[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
            self._live = True
        else:
            print(told(), file=sys.stderr, flush=True)

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


class _Told(logging.Handler):
    """What the rest of the house logs, said to the user."""

    def emit(self, record: logging.LogRecord) -> None:
        SESSION.tell(record.getMessage())


logging.getLogger("stillhouse").addHandler(_Told())
logging.getLogger("stillhouse").setLevel(logging.INFO)
logging.getLogger("stillhouse").propagate = False
