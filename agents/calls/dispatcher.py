"""Request dispatcher: answers the requests of all shards of a run from the reply cache or a teacher, at once or in batches.

Equal requests share one reply: from the cache of earlier runs, from a call in flight, or from a new call. Knows no topology.
"""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

from agents.calls.budget import BudgetAccount, RunBudget
from agents.calls.reply_cache import ReplyCache, open_reply_cache
from agents.planning.run_plan import RunPlan
from core.errors import StillhouseError, StoreError
from core.hub_reference import remove_revision
from core.runs.run_dir import RunDir
from core.sample import text_digest
from core.secrets import find_read_key
from core.stop_signal import RunStopped, StopSignal
from teachers.base import CallFailed, ChargeAccount, Teacher, TeacherQuestion, TeacherReply
from teachers.protocols import CollectingTeacher
from teachers.providers import open_teacher
from teachers.rate_limiter import RateLimiter

SAMPLES_PER_SLOT = 1.5
"""Open samples per slot of the teachers, so that no slot is idle while code runs between two calls."""
MIN_FREE_BYTES = 64 * 2**20
"""With less free disk space no call is sent: the replies of calls in flight need room."""
DISK_CHECK_SECONDS = 1.0
STOP_POLL_SECONDS = 0.2
STOP_SECONDS = 5.0
"""Seconds between the user's stop and the cancellation of open samples. Prefect's worker kills a process 30 seconds after it
cancelled its flow run; on a busy machine the rest of the shutdown (teachers end, the state is recorded) takes part of them.
"""
GC_THRESHOLD = 200_000
"""New objects between two searches of the garbage collector for reference cycles. With the default of 700, the searches took
half of the CPU time of a thousand open samples, which leave almost no cycles."""
QUIET_STEPS = 8
"""Steps of the event loop without any progress before questions are sent: a task that was just woken needs one or two of them to
count again."""

AskTraced = Callable[..., Awaitable[TeacherReply]]
"""Called with a teacher and the arguments of its `reply`."""


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


@dataclass
class RequestDispatcher:
    """The teachers of a run, with their accounts, the reply cache, the budget and the stop signal."""

    teachers: Mapping[str, Teacher]
    accounts: Mapping[str, ChargeAccount]
    cache: ReplyCache
    budget: RunBudget
    stop_signal: StopSignal
    folder: Path
    """The run's folder, whose disk must have room."""
    sample_slots: RateLimiter
    """Limits the number of open samples to what keeps the teachers busy; the lowest index starts first."""
    resources: Any = None
    """What the recipe's family holds open."""
    waves: BatchWaves = field(init=False)
    replies: Counter[str] = field(default_factory=Counter)
    """By teacher, without those from the cache."""
    _pending: dict[str, asyncio.Future[TeacherReply]] = field(default_factory=dict)
    _open_samples: set[asyncio.Timeout] = field(default_factory=set)
    _disk_checked_at: float = -1e9

    def __post_init__(self) -> None:
        self.waves = BatchWaves(self.teachers.values(), self.budget)

    @asynccontextmanager
    async def admit_sample(self, index: int) -> AsyncIterator[None]:
        """Hold one sample open, from its first call to its last.

        Raises:
            RunStopped: if no sample may start, or this sample was cut off. Its replies so far are in the ledger; a call in
                flight counts as paid, as after a kill, and a resumed run asks it again.
        """
        async with self.sample_slots.admit(index):
            self.stop_signal.check_sample()
            async with self.budget.admit_sample():
                self.stop_signal.check_sample()
                try:
                    async with asyncio.timeout(None) as limit:
                        self._open_samples.add(limit)
                        with self.waves.hold_open(index):
                            yield
                except TimeoutError:
                    if limit.expired():
                        raise RunStopped from None
                    raise
                finally:
                    self._open_samples.discard(limit)

    def cut_off(self) -> None:
        """End every open sample now."""
        for limit in self._open_samples:
            limit.reschedule(0)

    def request_digest(self, name: str, question: TeacherQuestion) -> str:
        """The identity of a request: equal requests may share a reply across samples, shards and runs. A file of weights counts
        by its name, without its folder: its hash is in the teacher's manner.
        """
        teacher = self.teachers[name]
        model = remove_revision(teacher.model)
        if model.startswith("local/") and model.endswith(".gguf") and model == teacher.model:
            model = f"local/{Path(model).name}"
        return text_digest(f"{model}\n{teacher.manner}\n{question.canonical}", length=32)

    async def answer(
        self, name: str, question: TeacherQuestion, request: str, rank: int, traced: AskTraced | None = None
    ) -> TeacherReply:
        """The reply of the teacher called `name`. Of waiting calls, the lowest `rank` is sent first. With `traced`, each try is a
        span.

        Raises:
            RunStopped: if no call may be sent.
            CallFailed, ProviderError: as `Teacher.reply`.
            StoreError: if the disk is nearly full.
        """
        with self.waves.call(rank, self.teachers[name]):
            while (pending := self._pending.get(request)) is not None:
                await asyncio.wait([pending])
                if not pending.cancelled():
                    return pending.result()
            return await self._answer_once(name, question, request, rank, traced)

    async def _answer_once(
        self, name: str, question: TeacherQuestion, request: str, rank: int, traced: AskTraced | None
    ) -> TeacherReply:
        """As `answer`, while no equal request is in flight."""
        pending = self._pending[request] = asyncio.get_running_loop().create_future()
        try:
            reply = self.cache.get(request)
            if reply is None:
                self.stop_signal.check_call()
                self._check_disk()
                ask = partial(traced, self.teachers[name]) if traced else self.teachers[name].reply
                reply = await ask(question, rank, self.accounts[name])
                self.replies[name] += 1
                if variable := find_read_key(f"{reply.text}\n{reply.reasoning}"):  # before anything is stored
                    raise CallFailed(f"the reply contains the key in {variable}, which no file of a run may")
                if reply.text.strip():  # an empty reply is not cached
                    self.cache.put(request, reply)
            pending.set_result(reply)
        except (CallFailed, StillhouseError) as error:
            pending.set_exception(error)
            pending.exception()  # marks the error as retrieved, so that asyncio does not warn if no task waits
            raise
        finally:
            pending.cancel()  # without a result, a waiting task asks again
            del self._pending[request]
        return reply

    def _check_disk(self) -> None:
        if monotonic() - self._disk_checked_at < DISK_CHECK_SECONDS:
            return
        disk = os.statvfs(self.folder)
        if (free := disk.f_bavail * disk.f_frsize) < MIN_FREE_BYTES:
            raise StoreError(
                f"{self.folder}: {free >> 20} MiB are free, and answers that are paid for need room; "
                "free some space, then --resume"
            )
        self._disk_checked_at = monotonic()


@asynccontextmanager
async def open_dispatcher(
    plan: RunPlan, budget: RunBudget, stop_signal: StopSignal, folder: Path, cache: Path
) -> AsyncIterator[RequestDispatcher]:
    """Start the teachers that the plan's agents use, and what its family holds open. The budget must be open; it counts for the
    whole run.

    Raises:
        ProviderError: if a teacher cannot be started or reached.
        RunFailed: if what the family needs cannot be opened, as the recipe's own tools.
        RunStopped: if the run is stopped before every teacher is ready.
    """
    configs = {name: plan.recipe.teachers[name] for name in sorted(plan.teachers)}
    async with AsyncExitStack() as stack:
        stack.enter_context(_rare_garbage_collection())
        teachers: dict[str, Teacher] = {}
        for name, config in configs.items():
            quoted = quote(name, safe="")
            opened = open_teacher(config, RunDir(folder).batches / quoted, RunDir(folder).rejected_keys_file(quoted))
            starting = asyncio.ensure_future(stack.enter_async_context(opened))
            while not starting.done():  # a model may load for minutes, and the run may be stopped before it is ready
                await asyncio.wait([starting], timeout=STOP_POLL_SECONDS)
                if stop_signal.calls_stopped and not starting.done():
                    starting.cancel()
                    await asyncio.wait([starting])
                    raise RunStopped
            teachers[name] = await starting
        accounts = {name: BudgetAccount(budget, stop_signal, config) for name, config in configs.items()}
        reply_cache = stack.enter_context(open_reply_cache(plan.recipe.cache_mb, cache))
        resources = await stack.enter_async_context(plan.family.open_resources(plan.recipe, plan.folder))
        sample_slots = RateLimiter(_count_sample_slots(teachers.values()))
        dispatcher = RequestDispatcher(
            teachers, accounts, reply_cache, budget, stop_signal, folder, sample_slots, resources
        )
        watch = asyncio.create_task(_watch_stop_signal(dispatcher))
        try:
            yield dispatcher
        finally:
            watch.cancel()


def _count_sample_slots(teachers: Iterable[Teacher]) -> int:
    """The number of samples to hold open: all of a batch, since each waits for its end."""
    slots = {True: [0], False: [0]}
    for teacher in teachers:
        slots[isinstance(teacher, CollectingTeacher) and teacher.collects].append(teacher.slots)
    return max(1, max(slots[True]) + round(sum(slots[False]) * SAMPLES_PER_SLOT))


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(GC_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _watch_stop_signal(dispatcher: RequestDispatcher) -> None:
    """When the run stops, wake the calls that wait for a teacher; when the user stops it, cut the open samples off."""
    while not dispatcher.stop_signal.calls_stopped:
        await asyncio.sleep(STOP_POLL_SECONDS)
    for teacher in dispatcher.teachers.values():
        teacher.release()
    while not dispatcher.stop_signal.user_stops:
        await asyncio.sleep(STOP_POLL_SECONDS)
    await asyncio.sleep(STOP_SECONDS)
    dispatcher.cut_off()
