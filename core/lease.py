"""A lease: who of several machines may change a place on an object store, by the one thing that such a store has for it: a put
that is refused where there is something already (S3's `If-None-Match`). Knows nothing of what is there.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from time import monotonic
from typing import Any
from uuid import uuid4

from core.errors import RunExists, StoreError, UsageError

BEAT_SECONDS = 15.0
SILENT_SECONDS = 90.0
"""After so long without a sign of life, a holder counts as dead."""


class TakenOver(StoreError):
    """Another machine holds what this one held."""


@contextmanager
def repeated(seconds: float, work: Callable[[], bool]) -> Iterator[None]:
    """Do `work` in a thread of its own so often meanwhile, until it says no."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds) and work():
            pass

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclass
class Lease:
    """The numbered objects of a place: who made the highest one holds it, until it says otherwise or falls silent."""

    fs: Any
    place: str
    what: str
    mirror: str
    number: int = 0

    def take(self) -> None:
        """Raises RunExists, UsageError and StoreError as `Depot.leased`."""
        with store_failures(self.what):
            now, held = self._now(), self._numbers()
            if held:
                self._check_free(max(held), now)
            self.number = max(held, default=0) + 1
            try:
                self._create(self._object(self.number))
            except FileExistsError:
                raise self._beaten() from None
            if max(self._numbers()) != self.number:
                raise self._beaten()
            for number in held:
                with suppress(FileNotFoundError):
                    self.fs.rm_file(self._object(number))

    def _beaten(self) -> RunExists:
        return RunExists(f"{self.what}: another machine just began to work on it; wait for it or stop it")

    def _check_free(self, number: int, now: datetime) -> None:
        try:
            said = json.loads(self.fs.cat_file(self._object(number)))
            silent = (now - self.fs.modified(self._object(number))).total_seconds()
        except (FileNotFoundError, ValueError):
            return
        if not said["given_back"] and said["mirror"] != self.mirror and silent < SILENT_SECONDS:
            raise RunExists(
                f"{self.what}: {said['holder']} works on it, heard of {max(0, silent):.0f} s ago; wait for it or stop it. "
                f"If it is dead, it lets go in {SILENT_SECONDS - silent:.0f} s"
            )

    def _now(self) -> datetime:
        """By the store's clock, which also dates the leases. Makes sure on the way that a second put is refused."""
        probe = f"{self.place}/probe-{uuid4().hex}"
        self._create(probe)
        try:
            with suppress(FileExistsError):
                self._create(probe)
                raise UsageError(
                    f"{self.what}: this store does not refuse to overwrite (If-None-Match), so that two machines could work "
                    "on one run; take another store"
                )
            self.fs.invalidate_cache()
            found: datetime = self.fs.modified(probe)
            return found
        finally:
            self.fs.rm_file(probe)

    def beat(self) -> None:
        """Show a sign of life.

        Raises:
            TakenOver: if another holds it by now.
            StoreError: if the store cannot be reached.
        """
        with store_failures(self.what):
            if max(self._numbers(), default=0) != self.number:
                raise TakenOver(
                    f"{self.what}: another machine took over, since this one was silent for {SILENT_SECONDS:g} s; it "
                    "goes on there"
                )
            self.fs.pipe_file(self._object(self.number), self._said())

    def give_back(self) -> None:
        with suppress(StoreError), store_failures(self.what):
            if max(self._numbers(), default=0) == self.number:
                self.fs.pipe_file(self._object(self.number), self._said(given_back=True))

    @contextmanager
    def kept_up(self, lost: Callable[[StoreError], None]) -> Iterator[None]:
        """Show signs of life meanwhile. `lost` hears why that came to an end."""
        heard = monotonic()

        def beat() -> bool:
            nonlocal heard
            try:
                self.beat()
                heard = monotonic()
            except StoreError as error:
                if isinstance(error, TakenOver) or monotonic() - heard > SILENT_SECONDS - 2 * BEAT_SECONDS:
                    lost(error)
                    return False
            return True

        with repeated(BEAT_SECONDS, beat):
            yield

    def _said(self, *, given_back: bool = False) -> bytes:
        told = {
            "holder": f"{socket.gethostname()}, process {os.getpid()},",
            "mirror": self.mirror,
            "given_back": given_back,
        }
        return json.dumps(told).encode()

    def _create(self, path: str) -> None:
        """Raises FileExistsError where there is something."""
        self.fs.pipe_file(path, self._said(), mode="create")

    def _object(self, number: int) -> str:
        return f"{self.place}/{number:06d}"

    def _numbers(self) -> list[int]:
        self.fs.invalidate_cache()
        names = (PurePosixPath(path).name for path in self.fs.find(self.place))
        return [int(name) for name in names if name.isdecimal()]


@contextmanager
def store_failures(what: str) -> Iterator[None]:
    """Failures of the store as one sentence."""
    try:
        yield
    except ImportError as error:
        raise UsageError(f"{what}: needs what reads {what.partition('://')[0]}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{what}: is no place on an object store: {error}") from None
    except _failures() as error:
        raise StoreError(f"{what}: the store does not answer as it should: {error}; check address and keys") from error


def _failures() -> tuple[type[Exception], ...]:
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return (OSError,)
    return (OSError, BotoCoreError)
