"""Sample worker: makes samples for a run whose teachers, budget and files belong to another process. Knows neither the process
that started it nor where samples are stored.
"""

import asyncio
import traceback
from dataclasses import dataclass
from itertools import count

import aiohttp
from aiohttp import WSCloseCode

from agents.calls.agent_context import AgentContext
from agents.planning.run_plan import RunPlan
from agents.topologies.sample_production import make_sample
from core.errors import StillhouseError
from core.sample import Seed
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
