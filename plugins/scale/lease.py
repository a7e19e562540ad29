"""A lease: which machine may change a location on an object store. It relies on conditional puts, which fail if the object
exists (S3's `If-None-Match`). Knows nothing of the location's content.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from time import monotonic
from typing import Any, NamedTuple
from uuid import uuid4

from core.errors import RunInUse, StoreError, UsageError
from core.installation import format_install_command
from core.storage.background_work import repeat_in_background

HEARTBEAT_SECONDS = 15.0
EXPIRY_SECONDS = 90.0
"""A holder without a heartbeat for this time counts as dead."""


class LeaseLost(StoreError):
    """Another machine took over this machine's lease."""


class _Holder(NamedTuple):
    name: str
    silent: float
    """Seconds since its last heartbeat."""


@dataclass
class Lease:
    """Numbered objects at a location: the creator of the highest number holds the lease, until it is released or expires."""

    fs: Any
    location: str
    what: str
    mirror: str
    number: int = 0

    def acquire(self) -> None:
        """Raises RunInUse, UsageError and StoreError as `ObjectStore.hold_lease`."""
        with translate_store_errors(self.what):
            # A new object shows the time of the store's clock, which also dates the leases. The store must reject a second put.
            probe = f"{self.location}/probe-{uuid4().hex}"
            self._create(probe)
            try:
                with suppress(FileExistsError):
                    self._create(probe)
                    raise UsageError(
                        f"{self.what}: this store allows overwriting despite If-None-Match, so two machines could work on the "
                        "same run; use another store"
                    )
                self.fs.invalidate_cache()
                now: datetime = self.fs.modified(probe)
            finally:
                self.fs.rm_file(probe)

            numbers = self._list_numbers()
            if numbers and (other := self._other_holder(max(numbers), now)):
                raise RunInUse(
                    f"{self.what}: {other.name} works on it, last heartbeat {max(0, other.silent):.0f} s ago; wait for it or "
                    f"stop it. If it is dead, its lease expires in {EXPIRY_SECONDS - other.silent:.0f} s"
                )

            self.number = max(numbers, default=0) + 1
            try:
                self._create(self._build_object_path(self.number))
            except FileExistsError:
                raise self._build_lost_race_error() from None
            if max(self._list_numbers()) != self.number:
                raise self._build_lost_race_error()
            for number in numbers:
                with suppress(FileNotFoundError):
                    self.fs.rm_file(self._build_object_path(number))

    def _build_lost_race_error(self) -> RunInUse:
        return RunInUse(f"{self.what}: another machine just started to work on it; wait for it or stop it")

    def _other_holder(self, number: int, now: datetime) -> _Holder | None:
        try:
            lease = json.loads(self.fs.cat_file(self._build_object_path(number)))
            silent = (now - self.fs.modified(self._build_object_path(number))).total_seconds()
        except (FileNotFoundError, ValueError):
            return None
        active = not lease["given_back"] and lease["mirror"] != self.mirror and silent < EXPIRY_SECONDS
        return _Holder(lease["holder"], silent) if active else None

    def is_held_elsewhere(self) -> bool:
        """Whether another machine holds the lease, by this machine's clock: reading the store's clock needs a write."""
        with translate_store_errors(self.what):
            numbers = self._list_numbers()
            return bool(numbers and self._other_holder(max(numbers), datetime.now(UTC)))

    def renew(self) -> None:
        """Write a heartbeat.

        Raises:
            LeaseLost: if another machine holds the lease.
            StoreError: if the store cannot be reached.
        """
        with translate_store_errors(self.what):
            if max(self._list_numbers(), default=0) != self.number:
                raise LeaseLost(
                    f"{self.what}: another machine took over, since this one sent no heartbeat for {EXPIRY_SECONDS:g} s; the "
                    "run continues there"
                )
            self.fs.pipe_file(self._build_object_path(self.number), self._build_content())

    def release(self) -> None:
        with suppress(StoreError), translate_store_errors(self.what):
            if max(self._list_numbers(), default=0) == self.number:
                self.fs.pipe_file(self._build_object_path(self.number), self._build_content(given_back=True))

    @contextmanager
    def renew_in_background(self, lost: Callable[[StoreError], None]) -> Iterator[None]:
        """Write heartbeats during the block. `lost` is called with the reason if they end."""
        renewed = monotonic()

        def beat() -> bool:
            nonlocal renewed
            try:
                self.renew()
                renewed = monotonic()
            except StoreError as error:
                if isinstance(error, LeaseLost) or monotonic() - renewed > EXPIRY_SECONDS - 2 * HEARTBEAT_SECONDS:
                    lost(error)
                    return False
            return True

        with repeat_in_background(HEARTBEAT_SECONDS, beat):
            yield

    def _build_content(self, *, given_back: bool = False) -> bytes:
        content = {
            "holder": f"{socket.gethostname()}, process {os.getpid()},",
            "mirror": self.mirror,
            "given_back": given_back,
        }
        return json.dumps(content).encode()

    def _create(self, path: str) -> None:
        """Raises FileExistsError if the object exists."""
        self.fs.pipe_file(path, self._build_content(), mode="create")

    def _build_object_path(self, number: int) -> str:
        return f"{self.location}/{number:06d}"

    def _list_numbers(self) -> list[int]:
        self.fs.invalidate_cache()
        names = (PurePosixPath(path).name for path in self.fs.find(self.location))
        return [int(name) for name in names if name.isdecimal()]


@contextmanager
def translate_store_errors(what: str) -> Iterator[None]:
    """Turn failures of the store into an error of one sentence."""
    try:
        yield
    except ImportError as error:
        protocol = what.partition("://")[0]
        if protocol == "s3":
            command = format_install_command("scale")
            raise UsageError(f"{what}: needs the extra `scale` (s3fs is missing): run {command}") from None
        raise UsageError(f"{what}: needs a package for {protocol}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{what}: is not a location on an object store: {error}") from None
    except _list_store_errors() as error:
        raise StoreError(f"{what}: unexpected answer of the store: {error}; check address and keys") from error


def _list_store_errors() -> tuple[type[Exception], ...]:
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return (OSError,)
    return (OSError, BotoCoreError)
