"""Where all shards of a run bring their questions: one place that knows what was answered, what is being asked, and what
may still be paid for.

Knows no topology. An equal request is sent once: to the cache of earlier runs, to the call that is under way, or to
the teacher.
"""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from agents.brake import Brake, Stopped
from agents.budget import Budget, TeacherAccount
from agents.cache import AnswerCache, open_cache
from agents.plan import Plan
from agents.teachers import open_teacher
from agents.teachers.base import Account, CallFailed, Question, Reply, Teacher
from agents.teachers.gate import Gate
from core.errors import StillhouseError, StoreError
from core.sample import digest_of_text

READ_AHEAD = 1.5
"""Samples under way for each slot of the teachers, so that no slot waits for code between two calls."""
ROOM_BYTES = 64 * 2**20
"""With less room on the disk no call is sent: answers of calls in flight must find place."""
ROOM_SECONDS = 1.0
WATCH_SECONDS = 0.2
COLLECT_AFTER = 200_000
"""New objects after which the interpreter looks for those that only hold each other. With its own 700, that took half of the
processor time of a thousand samples under way, which leave next to none of such behind."""


@dataclass
class Desk:
    teachers: Mapping[str, Teacher]
    accounts: Mapping[str, Account]
    cache: AnswerCache
    budget: Budget
    brake: Brake
    folder: Path
    """Where the run is, whose disk must have room."""
    floor: Gate
    """Where samples wait to begin: so many at once as keep the teachers busy, the lowest index first."""
    _pending: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)
    _room_seen: float = -1e9

    @asynccontextmanager
    async def sample(self, index: int) -> AsyncIterator[None]:
        """A place on the floor for one sample, from its first call to its last.

        Raises:
            Stopped: if no sample may be begun.
        """
        async with self.floor.admitted(index):
            self.brake.check_sample()
            async with self.budget.sample():
                self.brake.check_sample()
                yield

    def request(self, name: str, question: Question) -> str:
        """The identity of a request: equal ones may share an answer, whichever sample, run or shard they come from."""
        teacher = self.teachers[name]
        return digest_of_text(f"{teacher.model}\n{teacher.manner}\n{question.canonical}", length=32)

    async def answer(self, name: str, question: Question, request: str, rank: int) -> Reply:
        """What the teacher called `name` says.

        Raises:
            Stopped: if it may not be asked any more.
            CallFailed, ProviderError: as `Teacher.reply`.
            StoreError: if the disk is nearly full.
        """
        while (pending := self._pending.get(request)) is not None:
            await asyncio.wait([pending])
            if not pending.cancelled():
                return pending.result()
        pending = self._pending[request] = asyncio.get_running_loop().create_future()
        try:
            reply = self.cache.get(request)
            if reply is None:
                reply = await self._ask(name, question, rank)
                if reply.text.strip():  # nothing is no answer to keep
                    self.cache.put(request, reply)
            pending.set_result(reply)
        except (CallFailed, StillhouseError) as error:
            pending.set_exception(error)
            pending.exception()  # seen, so that nobody is warned where nobody waited
            raise
        finally:
            pending.cancel()  # where it has no result: whoever waits for it asks again
            del self._pending[request]
        return reply

    async def _ask(self, name: str, question: Question, rank: int) -> Reply:
        self.brake.check_call()
        self._check_disk()
        return await self.teachers[name].reply(question, rank, self.accounts[name])

    def _check_disk(self) -> None:
        if monotonic() - self._room_seen < ROOM_SECONDS:
            return
        disk = os.statvfs(self.folder)
        if (free := disk.f_bavail * disk.f_frsize) < ROOM_BYTES:
            raise StoreError(
                f"{self.folder}: {free >> 20} MiB are free, and answers that are paid for need room; "
                "free some space, then go on with --resume"
            )
        self._room_seen = monotonic()


@asynccontextmanager
async def open_desk(plan: Plan, budget: Budget, brake: Brake, folder: Path, cache: Path) -> AsyncIterator[Desk]:
    """Start the teachers that the plan's agents use. The budget is open already, and counts for the whole run.

    Raises:
        ProviderError: if a teacher cannot be had.
    """
    recipe, names = plan.recipe, sorted(plan.teachers)
    async with AsyncExitStack() as stack:
        stack.enter_context(_collected_seldom())
        teachers = {name: await _started(stack, open_teacher(recipe.teachers[name]), brake) for name in names}
        accounts = {name: TeacherAccount(budget, brake, recipe.teachers[name]) for name in names}
        answers = stack.enter_context(open_cache(recipe.cache, cache))
        floor = Gate(round(sum(teacher.slots for teacher in teachers.values()) * READ_AHEAD) or 1)
        watch = asyncio.create_task(_release_when_pulled(brake, teachers))
        try:
            yield Desk(teachers, accounts, answers, budget, brake, folder, floor)
        finally:
            watch.cancel()


@contextmanager
def _collected_seldom() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _started(stack: AsyncExitStack, opening: AbstractAsyncContextManager[Teacher], brake: Brake) -> Teacher:
    """The teacher, once it is ready; raises Stopped where the run is to stop before, since a model may load for minutes."""
    starting = asyncio.ensure_future(stack.enter_async_context(opening))
    while not starting.done():
        await asyncio.wait([starting], timeout=WATCH_SECONDS)
        if brake.pulled and not starting.done():
            starting.cancel()
            await asyncio.wait([starting])
            raise Stopped
    return await starting


async def _release_when_pulled(brake: Brake, teachers: Mapping[str, Teacher]) -> None:
    """What waits for a place at a teacher would otherwise wait as long as the teacher asked to."""
    while not brake.pulled:
        await asyncio.sleep(WATCH_SECONDS)
    for teacher in teachers.values():
        teacher.release()
