"""Worker pool: the processes that make a run's samples, while dispatcher, ledgers and budget stay in this process. So any number
of workers keeps the guarantees of one process: no call twice, no limit exceeded, no budget overspent.

A worker is any client with the token; the pool knows no Dask and no Ray. A lost worker costs no reply: replies to its requests
are stored here, even after its end, and another worker makes its samples again.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from time import monotonic

from aiohttp import WSMsgType, web
from pydantic import ValidationError

from agents.calls.agent_context import LocalAgentContext
from core.errors import RunFailed, UsageError
from core.sample import Sample, Seed
from core.stop_signal import StopSignal
from plugins.scale.worker_protocol import (
    FROM_WORKER,
    HEARTBEAT_SECONDS,
    MAX_MESSAGE_BYTES,
    CallAnswered,
    CallRequested,
    SampleCancelled,
    SampleCrashed,
    SampleFinished,
    SampleRequested,
    ToWorker,
    WorkerAddress,
    WorkerJoined,
)
from teachers.base import CallFailed

JOIN_PATIENCE_SECONDS = 60.0
"""Seconds that a run without a worker waits for one."""
MAX_LOSSES = 3
"""Workers that may be lost with the same sample before the run stops, since the sample may be the cause."""
POLL_SECONDS = 0.2
CLOSE_SECONDS = 1.0
"""Seconds that closing waits for a busy worker."""

logger = logging.getLogger("stillhouse")


class WorkerLost(Exception):
    """The connection to a worker broke."""


class WorkerBug(Exception):
    """A bug that a worker met, with its traceback."""


class WorkerPool:
    """The connected workers, and the samples that each of them makes."""

    def __init__(self, sources: Mapping[str, str], patience: float = JOIN_PATIENCE_SECONDS) -> None:
        self._sources = sources
        self._patience = patience
        self._connections: list[_PoolConnection] = []
        self._problem: RunFailed | None = None
        self._waiting_since: float | None = None

    @property
    def workers(self) -> list[str]:
        """The names of the connected workers."""
        return sorted(connection.worker for connection in self._connections)

    async def make_sample(self, context: LocalAgentContext, seed: Seed) -> Sample:
        """As `sample_production.make_sample`, by the least busy worker. Returns when no call for the sample is in flight.

        Raises:
            RunFailed: if no worker connects, or too many were lost with this sample.
            WorkerBug: if the worker met a bug.
        """
        pending = _PendingSample(context, seed)
        try:
            for _ in range(MAX_LOSSES):
                connection = await self._least_busy(context.dispatcher.stop_signal)
                try:
                    return await connection.make_sample(pending)
                except WorkerLost:
                    continue
        except asyncio.CancelledError:
            pending.cancel()
            raise
        finally:
            await pending.end()
        raise RunFailed(
            f"sample {seed.id}: {MAX_LOSSES} workers were lost while they made it; read their logs (memory?), then --resume"
        )

    async def _least_busy(self, stop_signal: StopSignal) -> "_PoolConnection":
        """The connection with the fewest samples; waits for a worker if there is none."""
        while not self._connections:
            stop_signal.check_call()
            if self._problem:
                raise self._problem
            self._waiting_since = self._waiting_since or monotonic()
            if monotonic() - self._waiting_since > self._patience:
                raise RunFailed(
                    f"no worker has connected for {self._patience:g} s; check that workers run and can reach this machine, "
                    "then --resume"
                )
            await asyncio.sleep(POLL_SECONDS)
        self._waiting_since = None
        return min(self._connections, key=lambda connection: connection.load)

    async def accept_worker(self, socket: web.WebSocketResponse) -> None:
        """Exchange messages with one worker until it disconnects."""
        connection = _PoolConnection(socket)
        try:
            async for raw in socket:
                if raw.type is not WSMsgType.TEXT:
                    break
                try:
                    message = FROM_WORKER.validate_json(raw.data)
                except ValidationError:
                    self._problem = _mismatch_error(connection.worker, "sent a message that this version cannot read")
                    break
                if not isinstance(message, WorkerJoined):
                    connection.receive(message)
                    continue
                connection.worker = message.worker
                names = {*message.sources, *self._sources}
                different = sorted(name for name in names if message.sources.get(name) != self._sources.get(name))
                problem = message.problem
                if different and not problem:
                    problem = f"has another {', '.join(different)} than this machine"
                if problem:
                    self._problem = _mismatch_error(connection.worker, problem)
                    logger.warning("%s", self._problem)
                    break
                self._connections.append(connection)
        finally:
            if connection in self._connections:
                self._connections.remove(connection)
            if lost := connection.fail_samples():
                logger.warning(
                    "worker %s disconnected; its %d unfinished samples are made again", connection.worker, lost
                )


def _mismatch_error(worker: str, problem: str) -> RunFailed:
    return RunFailed(f"worker {worker}: {problem}; give all workers the same files and version, then --resume")


class _PendingSample:
    """A sample that workers make, and the calls in flight for it."""

    def __init__(self, context: LocalAgentContext, seed: Seed) -> None:
        self.context = context
        self.seed = seed
        self.sample: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._calls: set[asyncio.Task[None]] = set()

    def answer(self, request: CallRequested, connection: "_PoolConnection") -> None:
        task = asyncio.create_task(self._answer(request, connection))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _answer(self, request: CallRequested, connection: "_PoolConnection") -> None:
        try:
            reply = await self.context.reply(request.teacher, request.question, request.key)
            await connection.send(CallAnswered(number=request.number, reply=reply))
        except CallFailed as failure:
            await connection.send(CallAnswered(number=request.number, failure=str(failure)))
        except Exception as error:
            if not self.sample.done():
                self.sample.set_exception(error)

    def cancel(self) -> None:
        for call in self._calls:
            call.cancel()

    async def end(self) -> None:
        """Return when every reply has arrived and is stored."""
        await asyncio.gather(*self._calls, return_exceptions=True)


class _PoolConnection:
    """The connection to one worker, and the samples that it makes."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.worker = "?"
        self._socket = socket
        self._samples: dict[str, _PendingSample] = {}

    @property
    def load(self) -> int:
        return len(self._samples)

    async def send(self, message: ToWorker) -> None:
        """Send a message; a broken connection loses it."""
        if not self._socket.closed:
            try:
                await self._socket.send_str(message.model_dump_json())
            except ConnectionError:
                return

    async def make_sample(self, pending: _PendingSample) -> Sample:
        pending.sample = asyncio.get_running_loop().create_future()
        self._samples[pending.seed.id] = pending
        try:
            await self.send(SampleRequested(seed=pending.seed))
            return await pending.sample
        except WorkerLost:
            raise
        except BaseException:
            await self.send(SampleCancelled(sample=pending.seed.id))
            raise
        finally:
            self._samples.pop(pending.seed.id, None)

    def receive(self, message: CallRequested | SampleFinished | SampleCrashed) -> None:
        pending = self._samples.get(message.sample.id if isinstance(message, SampleFinished) else message.sample)
        if pending is None or pending.sample.done():  # it was cancelled meanwhile
            return
        match message:
            case CallRequested():
                pending.answer(message, self)
            case SampleFinished(sample=sample):
                pending.sample.set_result(sample)
            case SampleCrashed(error=error, bug=bug):
                text = f"worker {self.worker}: {error}"
                pending.sample.set_exception(WorkerBug(text) if bug else RunFailed(text))

    def fail_samples(self) -> int:
        """Fail the samples in progress; returns their number."""
        lost = [pending for pending in self._samples.values() if not pending.sample.done()]
        for pending in lost:
            pending.sample.set_exception(WorkerLost())
        return len(lost)


@asynccontextmanager
async def accept_workers(pool: WorkerPool, host: str, port: int = 0) -> AsyncIterator[WorkerAddress]:
    """Accept workers that have the token, at `port` of `host` or at a free port, until the block ends; yields the address.

    Raises:
        UsageError: if the port is not available.
    """
    token = secrets.token_urlsafe(32)
    sockets: set[web.WebSocketResponse] = set()

    async def join(request: web.Request) -> web.StreamResponse:
        header = request.headers.get("Authorization", "")
        if not hmac.compare_digest(header.encode(), f"Bearer {token}".encode()):
            raise web.HTTPUnauthorized
        socket = web.WebSocketResponse(
            timeout=CLOSE_SECONDS, heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES, compress=False
        )
        sockets.add(socket)
        try:
            with suppress(ConnectionError):  # it disconnected at once
                await socket.prepare(request)
                await pool.accept_worker(socket)
        finally:
            sockets.discard(socket)
        return socket

    app = web.Application()
    app.router.add_get("/", join)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UsageError(
                f"scale.port: cannot listen on {host}:{port}: {error.strerror}; choose another port"
            ) from None
        yield WorkerAddress(f"http://{host}:{runner.addresses[0][1]}/", token)
    finally:
        for socket in list(sockets):
            if socket.prepared:
                await socket.close()
        await runner.cleanup()
