"""Why a run makes nothing new any more: the user's wish, a spent budget, a full disk, too many failures, enough samples.

Knows no topology and no teacher. Calls in flight are always answered and remembered: they are paid for.
"""

from typing import Protocol


class Stopped(Exception):
    """No new call is sent for this sample; it stays open, and a resumed run goes on with it."""


class Stop(Protocol):
    """The user's wish to stop, as `threading.Event` carries it."""

    def is_set(self) -> bool: ...


class Brake:
    """Two steps: no new sample is begun (`hold`), or no call is sent either (`pull`). The first reason is the one told."""

    def __init__(self, user: Stop) -> None:
        self._user = user
        self._hard = False
        self.reason: Exception | None = None

    def hold(self, reason: Exception) -> None:
        self.reason = self.reason or reason

    def pull(self, reason: Exception) -> None:
        if not self._hard:
            self._hard, self.reason = True, reason

    @property
    def pulled(self) -> bool:
        return self._hard or self._user.is_set()

    def check_sample(self) -> None:
        """Raises Stopped where no sample may be begun."""
        if self.reason or self._user.is_set():
            raise Stopped

    def check_call(self) -> None:
        """Raises Stopped where no call may be sent."""
        if self.pulled:
            raise Stopped
