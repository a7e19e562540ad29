"""Decides when the collected questions of batches are sent: when no sample can progress without a batch.

Knows which samples are open and what they wait for; knows no question and no provider.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agents.calls.budget import RunBudget
from teachers.base import Teacher
from teachers.protocols import CollectingTeacher

QUIET_STEPS = 8
"""Steps of the event loop without any progress before questions are sent: a task that was just woken needs one or two of them to
count again."""


@dataclass
class _SampleActivity:
    open: int = 0
    calls: int = 0
    """In flight."""
    batched: int = 0
    """Those of `calls` that wait for a batch."""

    @property
    def progresses(self) -> bool:
        return self.calls > self.batched or (self.open > 0 and not self.batched)


class BatchWaves:
    """Counts what can progress: samples, and shards that start or end. At zero, the teachers send what they collected."""

    def __init__(self, teachers: Iterable[Teacher], budget: RunBudget) -> None:
        self.teachers = [teacher for teacher in teachers if isinstance(teacher, CollectingTeacher)]
        self._samples: dict[int, _SampleActivity] = {}
        self._progressing = 0
        self._budget = budget
        self._check: asyncio.Task[None] | None = None
        for teacher in self.teachers:
            teacher.on_collected = self._send_when_quiet
        if self.teachers:
            budget.on_wait = self._send_when_quiet

    def describe(self) -> str:
        """The open batches in a line; "" if there is none."""
        return "; ".join(filter(None, (teacher.describe() for teacher in self.teachers)))

    @contextmanager
    def hold_open(self, sample: int) -> Iterator[None]:
        """Around an open sample."""
        with self._change(sample, "open", 1):
            yield

    @contextmanager
    def call(self, sample: int, teacher: Teacher) -> Iterator[None]:
        """Around one call for a sample."""
        with self._change(sample, "calls", 1):
            if isinstance(teacher, CollectingTeacher):
                with self._change(sample, "batched", 1):
                    yield
            else:
                yield

    @contextmanager
    def _change(self, sample: int, field: str, amount: int) -> Iterator[None]:
        if not self.teachers:
            yield
            return
        self._add(sample, field, amount)
        try:
            yield
        finally:
            self._add(sample, field, -amount)

    def _add(self, sample: int, field: str, amount: int) -> None:
        activity = self._samples.setdefault(sample, _SampleActivity())
        before = activity.progresses
        setattr(activity, field, getattr(activity, field) + amount)
        self._count(activity.progresses - before)
        if activity == _SampleActivity():
            del self._samples[sample]

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Around work that may start further samples. `waiting` in it is the time in which only the samples can progress."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside `busy`: the work only waits for its samples."""
        self._count(-1)
        try:
            yield
        finally:
            self._count(1)

    def _count(self, change: int) -> None:
        self._progressing += change
        self._send_when_quiet()

    @property
    def _quiet(self) -> bool:
        # A call that waits for room in the budget may wait for a question that was collected and is not sent.
        return self._progressing <= self._budget.waiting_calls

    def _send_when_quiet(self) -> None:
        if self._quiet and self._check is None and any(teacher.collected for teacher in self.teachers):
            self._check = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            for _ in range(QUIET_STEPS):
                await asyncio.sleep(0)
                if not self._quiet:
                    return
        finally:
            self._check = None
        if not any(teacher.delivering for teacher in self.teachers):
            for teacher in self.teachers:
                teacher.send_collected()
