"""Stops a run: on the user's request, a spent budget, a full disk, too many failures, or enough samples.

Knows no topology and no teacher. Calls in flight are completed and stored, since they are paid for; only a stop by the user
aborts them, after a few seconds (`agents.calls.dispatcher`).
"""

from typing import Protocol


class RunStopped(Exception):
    """No new call is sent for this sample; a resumed run continues it."""


class UserStop(Protocol):
    """The user's request to stop, in the form of `threading.Event`."""

    def is_set(self) -> bool: ...


class StopSignal:
    """Two levels: start no new sample (`stop_samples`), or also send no call (`stop_calls`). `reason` is the first of a level."""

    def __init__(self, user: UserStop) -> None:
        self._user = user
        self._hard = False
        self.reason: Exception | None = None

    def stop_samples(self, reason: Exception) -> None:
        self.reason = self.reason or reason

    def stop_calls(self, reason: Exception) -> None:
        if not self._hard:
            self._hard, self.reason = True, reason

    @property
    def user_stops(self) -> bool:
        return self._user.is_set()

    @property
    def calls_stopped(self) -> bool:
        return self._hard or self.user_stops

    def check_sample(self) -> None:
        """Raises RunStopped if no sample may be started."""
        if self.reason or self.user_stops:
            raise RunStopped

    def check_call(self) -> None:
        """Raises RunStopped if no call may be sent."""
        if self.calls_stopped:
            raise RunStopped
