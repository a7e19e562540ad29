"""A sample worker: what it receives, and what it does until the run ends. It makes samples for a run whose teachers, budget and
files belong to another process. Knows no cluster engine, and not where samples are stored.
"""

import asyncio
import json
import traceback
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import aiohttp
from aiohttp import WSCloseCode

from agents.calls.agent_context import AgentContext
from agents.planning.run_plan import RunPlan
from agents.topologies.sample_production import make_sample
from core.config.recipe import parse_recipe
from core.errors import StillhouseError, UsageError
from core.installation import format_install_command
from core.sample import Seed
from plugins.scale.config import ScaleConfig
from plugins.scale.worker_protocol import (
    HEARTBEAT_SECONDS,
    MAX_MESSAGE_BYTES,
    TO_WORKER,
    CallAnswered,
    CallRequested,
    FromWorker,
    SampleCancelled,
    SampleCrashed,
    SampleFinished,
    SampleRequested,
    WorkerAddress,
    WorkerJoined,
)
from teachers.base import CallFailed, CallKey, TeacherQuestion, TeacherReply

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan

NORMAL_CLOSE_CODES = (WSCloseCode.OK, WSCloseCode.GOING_AWAY)


async def work_for_run(address: WorkerAddress, plan: RunPlan | None, joined: WorkerJoined) -> bool:
    """Make samples for the run until it closes the connection. Without a plan, only send `joined`, which has the problem.

    Returns:
        True if the run closed the connection, False if the connection broke.

    Raises:
        aiohttp.ClientError: if the run cannot be reached.
    """
    async with (
        aiohttp.ClientSession(headers=address.headers) as session,
        session.ws_connect(address.url, heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES) as socket,
    ):
        connection = _WorkerConnection(socket)
        await connection.send(joined)
        if plan:
            await connection.serve(plan)
        return plan is None or socket.close_code in NORMAL_CLOSE_CODES


class _WorkerConnection:
    """A connection to a run, and the samples in progress."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count()
        self._pending_calls: dict[int, asyncio.Future[TeacherReply]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def send(self, message: FromWorker) -> None:
        await self._socket.send_str(message.model_dump_json())

    async def serve(self, plan: RunPlan) -> None:
        try:
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                match TO_WORKER.validate_json(message.data):
                    case SampleRequested(seed=seed):
                        self._tasks[seed.id] = asyncio.create_task(self._make_sample(plan, seed))
                    case CallAnswered() as answered:
                        self._resolve_call(answered)
                    case SampleCancelled(sample=sample) if sample in self._tasks:
                        self._tasks[sample].cancel()
        finally:
            for task in list(self._tasks.values()):
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _make_sample(self, plan: RunPlan, seed: Seed) -> None:
        try:
            await self.send(SampleFinished(sample=await make_sample(_RemoteAgentContext(plan, self, seed.id), seed)))
        except StillhouseError as error:
            await self.send(SampleCrashed(sample=seed.id, error=str(error), bug=False))
        except Exception:
            await self.send(SampleCrashed(sample=seed.id, error=traceback.format_exc(), bug=True))
        finally:
            del self._tasks[seed.id]

    async def ask(self, sample: str, teacher: str, question: TeacherQuestion, key: CallKey) -> TeacherReply:
        number = next(self._numbers)
        future: asyncio.Future[TeacherReply] = asyncio.get_running_loop().create_future()
        self._pending_calls[number] = future
        try:
            await self.send(CallRequested(number=number, sample=sample, teacher=teacher, question=question, key=key))
            return await future
        finally:
            del self._pending_calls[number]

    def _resolve_call(self, answered: CallAnswered) -> None:
        future = self._pending_calls.get(answered.number)
        if future is None or future.done():
            return
        if answered.reply is None:
            future.set_exception(CallFailed(answered.failure))
        else:
            future.set_result(answered.reply)


@dataclass(frozen=True)
class _RemoteAgentContext(AgentContext):
    """The context of a sample in a worker process."""

    connection: _WorkerConnection
    sample: str

    async def reply(self, name: str, question: TeacherQuestion, key: CallKey) -> TeacherReply:
        return await self.connection.ask(self.sample, name, question, key)


LOOPBACK = "127.0.0.1"
REDIAL_SECONDS, REDIAL_LIMIT_SECONDS = 1.0, 60.0


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker receives. A worker builds its plan from files that are the same on every machine."""

    name: str
    """The name of the run."""
    address: WorkerAddress
    recipe: str
    """As JSON, with every default."""
    folder: str
    first: int
    """`first_seed` of the plan."""
    release: str | None
    """The folder of the release that has the weights of a promoted generator."""

    @classmethod
    def from_plan(cls, name: str, address: WorkerAddress, plan: "RunPlan") -> "WorkerSpec":
        folder = plan.recipe.generator_teacher.release_folder
        release = str(folder) if folder else None
        return cls(name, address, plan.recipe.model_dump_json(), str(plan.folder.resolve()), plan.first_seed, release)

    def load_plan(self) -> "RunPlan":
        from agents.planning.plan_building import build_plan

        recipe = parse_recipe(json.loads(self.recipe))
        if self.release:
            teachers = {name: teacher.in_release(Path(self.release)) for name, teacher in recipe.teachers.items()}
            recipe = recipe.model_copy(update={"teachers": teachers})
        plan = build_plan(recipe, Path(self.folder))
        return replace(plan, first_seed=self.first)


class ClusterEngine(Protocol):
    """Runs a sample worker on each worker of a cluster."""

    def find_local_host(self, address: str) -> str:
        """The address of this machine by which the workers of the cluster at `address` reach it.

        Raises:
            UsageError: if the cluster cannot be reached.
        """
        ...

    def place_workers(self, scale: ScaleConfig, spec: WorkerSpec) -> AbstractAsyncContextManager[str]:
        """Run a sample worker on each worker until the block ends; yields a description of them.

        Raises:
            UsageError: if the cluster cannot be reached, or its workers cannot run this checkout.
        """
        ...


async def run_sample_worker(spec: WorkerSpec, worker: str) -> None:
    """Connect to the run, make samples until the run ends, and connect again after a broken connection."""
    import aiohttp

    try:
        plan = spec.load_plan()
        joined = WorkerJoined(worker=worker, sources=plan.own_sources)
    except (StillhouseError, ValueError) as error:
        plan, joined = None, WorkerJoined(worker=worker, sources={}, problem=str(error))
    connected = monotonic()
    while monotonic() - connected < REDIAL_LIMIT_SECONDS:
        try:
            if await work_for_run(spec.address, plan, joined):
                return
            connected = monotonic()
        except (aiohttp.ClientConnectionError, OSError):
            pass
        await asyncio.sleep(REDIAL_SECONDS)


def build_missing_engine_error(engine: str, extra: str) -> UsageError:
    return UsageError(
        f"scale.runner: needs the extra `{extra}` ({engine} is missing): run {format_install_command(extra)}"
    )
