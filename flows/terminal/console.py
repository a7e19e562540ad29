"""The session of a command: the stop signal and the progress output. Knows nothing of samples."""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from core.errors import INTERRUPTED_EXIT_CODE
from core.stop_signal import RunStopped

T = TypeVar("T")
STOP_POLL_SECONDS = 0.2
LIVE_SECONDS, PLAIN_SECONDS = 0.2, 5.0
"""Minimum seconds between two progress lines: on a terminal, and elsewhere."""
SILENT_SECONDS, LONGEST_SILENCE_SECONDS = 30.0, 600.0
"""Work that prints nothing for this long gets a progress line; where lines stay, each further one comes after twice the time,
since a batch may take a day."""


class WorkProgress(NamedTuple):
    """The progress of long work, computed only when it is shown."""

    message: Callable[[], str]
    share: Callable[[], float]
    """The share that is done, from 0 to 1."""


def is_reporting_process() -> bool:
    """Whether this process prints results: the only one, or rank 0 of those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


ProgressListener = Callable[[str, float | None], object]
"""Called with a message, and with the share that is done where it is known."""


class UserInterrupt(BaseException):
    """The user asked to stop, and all work in flight is stored."""


class CommandSession:
    """Prints progress on stderr, one live line on a terminal, a line every few seconds elsewhere; or hands it to a listener."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.quiet = False
        self.progress: WorkProgress | None = None
        """The progress of the longest work, which Prefect's page shows too."""
        self._work: Callable[[], str] | None = None
        self._printed_at = 0.0
        self._printed = time.monotonic()
        self._silence = SILENT_SECONDS
        self._live = False
        self._handles_interrupts = False
        self._listener: ProgressListener | None = None
        self._said: set[str] = set()

    def print_unless_stopped(self, text: str) -> None:
        """Print a message. Raises UserInterrupt if the user asked to stop, so that long work with messages can be stopped."""
        self.print_message(text)
        self.check_stopped()

    def show_unless_stopped(self, text: str) -> None:
        """Show progress. Raises UserInterrupt if the user asked to stop."""
        self.show_progress(lambda: text)
        self.check_stopped()

    def check_stopped(self) -> None:
        """Raises UserInterrupt if the user asked to stop."""
        if self.stop.is_set():
            raise UserInterrupt

    async def run_unless_stopped(self, work: Awaitable[T]) -> T:
        """The result of `work`. If the user asks to stop, cancels it and raises UserInterrupt."""
        import asyncio

        task = asyncio.ensure_future(work)
        while not (await asyncio.wait([task], timeout=STOP_POLL_SECONDS))[0]:
            if self.stop.is_set():
                task.cancel()
                await asyncio.wait([task])
                raise UserInterrupt
        return await task

    def print_message(self, text: str) -> None:
        """Print a message, unless the session is quiet or a listener gets it."""
        self._silence = SILENT_SECONDS
        if self._listener:
            self._listener(text, None)
            self._printed = time.monotonic()
        elif not self.quiet:
            self._clear()
            print(text, file=sys.stderr, flush=True)
            self._printed = time.monotonic()

    def print_once(self, text: str) -> None:
        """Print a message, unless this command or library call printed it before."""
        if text not in self._said:
            self._said.add(text)
            self.print_message(text)

    @contextmanager
    def working(self, describe: Callable[[], str]) -> Iterator[None]:
        """Around long work. `describe` returns its progress, for `say_if_silent`."""
        before, self._work = self._work, describe
        try:
            yield
        finally:
            self._work = before

    def say_if_silent(self) -> None:
        """Print the progress of the work if nothing was printed for a while. Called by another thread."""
        if (work := self._work) and time.monotonic() - self._printed >= self._silence:
            silence = self._silence
            self.show_progress(work)
            if not self._live:
                self._silence = min(LONGEST_SILENCE_SECONDS, 2 * silence)

    def show_progress(self, describe: Callable[[], str]) -> None:
        """Print progress, at most every few seconds. `describe` is called only when its text is printed."""
        live = self._listener is not None or sys.stderr.isatty()
        if (self.quiet and not self._listener) or time.monotonic() - self._printed_at < (
            LIVE_SECONDS if live else PLAIN_SECONDS
        ):
            return
        self._printed_at = self._printed = time.monotonic()
        if self._listener:
            self._listener(describe(), self.progress and self.progress.share())
        elif live:
            text = describe()[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
            self._live = True
        else:
            print(describe(), file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[2K", end="", file=sys.stderr)
            self._live = False

    @contextmanager
    def report_to(self, listener: ProgressListener) -> Iterator[None]:
        """Call `listener` with what would be printed, and with the share of the work whose progress is shown."""
        before, self._listener, self.progress = self._listener, listener, None
        self._said.clear()
        try:
            yield
        finally:
            self._listener = before

    def run_interruptibly(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` in an event loop of its own. Raises UserInterrupt if calls were stopped."""
        import asyncio

        with self.handle_interrupts():
            try:
                return asyncio.run(work)
            except RunStopped:
                raise UserInterrupt from None

    @contextmanager
    def exit_if_interrupted(self, advice: str) -> Iterator[None]:
        """As `handle_interrupts`. A stop prints what is stored and how to go on, on stderr, and exits with 130."""
        with self.handle_interrupts():
            try:
                yield
            except (UserInterrupt, KeyboardInterrupt):
                if is_reporting_process():
                    print(f"interrupted; {advice}", file=sys.stderr)
                raise SystemExit(INTERRUPTED_EXIT_CODE) from None

    @contextmanager
    def handle_interrupts(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks to stop; the second stops immediately."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        self._handles_interrupts = True
        try:
            yield
        finally:
            self._handles_interrupts = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def restore_interrupt_handler(self) -> None:
        """Called first in a flow, since Prefect has just replaced the SIGTERM handler. A deployment keeps Prefect's handler."""
        if self._handles_interrupts and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._request_stop)

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.stop.set()
        clear = "\r\x1b[2K" if self._live else ""
        self._live = False
        text = f"{clear}stopping: work in flight gets a few seconds; press again to stop at once\n"
        try:
            print(text, end="", file=sys.stderr, flush=True)
        except RuntimeError:  # the signal came in the middle of a write to stderr, which allows no other
            os.write(sys.stderr.fileno(), text.encode())


SESSION = CommandSession()


class _ConsoleLogHandler(logging.Handler):
    """Prints log records of all packages for the user."""

    def emit(self, record: logging.LogRecord) -> None:
        SESSION.print_message(record.getMessage())


logging.getLogger("stillhouse").addHandler(_ConsoleLogHandler())
logging.getLogger("stillhouse").setLevel(logging.INFO)
logging.getLogger("stillhouse").propagate = False
