"""The makers of a run: processes that make its samples while desk, ledgers and budget stay here. So whatever one process
promises holds for any number of them: no call twice, no limit passed, no budget overspent.

Knows no Dask and no Ray: who dials in with the word is a maker. One that is lost costs no answer: what it asked is written
down here, also where the answer comes after its end, and its samples are made again by another.
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

from agents.brake import Brake
from agents.crew import DeskCrew
from agents.line import FROM_MAKER, HEARTBEAT, LONGEST, Answered, Asked, Broken, Joined, Leave, Made, Make, ToMaker
from agents.maker import Address
from agents.teachers.base import CallFailed
from core.errors import RunFailed, UsageError
from core.sample import Sample, Seed

PATIENCE = 60.0
"""Seconds that a run waits for a maker where it has none."""
LOSSES = 3
"""Makers that may be lost with one sample, before the run stops: it may be what kills them."""
LOOK_SECONDS = 0.2
GOODBYE_SECONDS = 1.0
"""How long the end waits for a maker that is at work."""

logger = logging.getLogger("stillhouse")


class MakerLost(Exception):
    """The line to a maker broke."""


class MakerBug(Exception):
    """What went wrong in a maker, with its traceback."""


class Makers:
    """All makers that are there, and what each of them makes."""

    def __init__(self, sources: Mapping[str, str], patience: float = PATIENCE) -> None:
        self._sources = sources
        self._patience = patience
        self._there: list[_Line] = []
        self._problem: RunFailed | None = None
        self._waiting_since: float | None = None

    @property
    def workers(self) -> list[str]:
        """Where they are."""
        return sorted(line.worker for line in self._there)

    async def make(self, crew: DeskCrew, seed: Seed) -> Sample:
        """As `make_sample`, by the maker that has least to do. Returns when nothing that was asked for it is under way.

        Raises:
            RunFailed: if there is no maker, or too many were lost with this sample.
            MakerBug: if making it went wrong.
        """
        work = _Work(crew, seed)
        try:
            for _ in range(LOSSES):
                line = await self._least_busy(crew.desk.brake)
                try:
                    return await line.make(work)
                except MakerLost:
                    continue
        except asyncio.CancelledError:
            work.cancel()
            raise
        finally:
            await work.end()
        raise RunFailed(
            f"sample {seed.id}: {LOSSES} workers were lost while they made it; look at their logs (memory?), then go on "
            "with --resume"
        )

    async def _least_busy(self, brake: Brake) -> "_Line":
        while not self._there:
            brake.check_call()
            self._check_patience()
            await asyncio.sleep(LOOK_SECONDS)
        self._waiting_since = None
        return min(self._there, key=lambda line: line.load)

    def _check_patience(self) -> None:
        if self._problem:
            raise self._problem
        self._waiting_since = self._waiting_since or monotonic()
        if monotonic() - self._waiting_since > self._patience:
            raise RunFailed(
                f"no worker has come for {self._patience:g} s; see whether they run and can reach this machine, then go "
                "on with --resume"
            )

    async def take_in(self, socket: web.WebSocketResponse) -> None:
        """Work with one maker for as long as it is there."""
        line = _Line(socket)
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                try:
                    said = FROM_MAKER.validate_json(message.data)
                except ValidationError:
                    self._problem = _unlike(line.worker, "says what this version does not understand")
                    break
                if isinstance(said, Joined):
                    line.worker = said.worker
                    if self._problem_of(said):
                        break
                    self._there.append(line)
                else:
                    line.hear(said)
        finally:
            if line in self._there:
                self._there.remove(line)
            if lost := line.lose():
                logger.warning("worker %s is gone; the %d samples that it made are made again", line.worker, lost)

    def _problem_of(self, joined: Joined) -> bool:
        unlike = sorted(
            name for name in {*joined.sources, *self._sources} if joined.sources.get(name) != self._sources.get(name)
        )
        what = joined.problem or (f"has another {', '.join(unlike)} than this machine" if unlike else "")
        if what:
            self._problem = _unlike(joined.worker, what)
            logger.warning("%s", self._problem)
        return bool(what)


def _unlike(worker: str, what: str) -> RunFailed:
    return RunFailed(f"worker {worker}: {what}; give all workers the same files and version, then --resume")


class _Work:
    """A sample that makers make, and what was asked for it."""

    def __init__(self, crew: DeskCrew, seed: Seed) -> None:
        self.crew = crew
        self.seed = seed
        self.sample: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._asks: set[asyncio.Task[None]] = set()

    def ask(self, asked: Asked, line: "_Line") -> None:
        task = asyncio.create_task(self._ask(asked, line))
        self._asks.add(task)
        task.add_done_callback(self._asks.discard)

    async def _ask(self, asked: Asked, line: "_Line") -> None:
        try:
            reply = await self.crew.reply(asked.teacher, asked.question, asked.ask)
            await line.say(Answered(number=asked.number, reply=reply))
        except CallFailed as failure:
            await line.say(Answered(number=asked.number, failure=str(failure)))
        except Exception as error:
            if not self.sample.done():
                self.sample.set_exception(error)

    def cancel(self) -> None:
        for ask in self._asks:
            ask.cancel()

    async def end(self) -> None:
        """Return when every answer is there and written down."""
        await asyncio.gather(*self._asks, return_exceptions=True)


class _Line:
    """What is being made at the other end of one line."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.worker = "?"
        self._socket = socket
        self._works: dict[str, _Work] = {}

    @property
    def load(self) -> int:
        return len(self._works)

    async def say(self, message: ToMaker) -> None:
        """Nothing is heard at the other end of a broken line."""
        if not self._socket.closed:
            try:
                await self._socket.send_str(message.model_dump_json())
            except ConnectionError:
                return

    async def make(self, work: _Work) -> Sample:
        work.sample = asyncio.get_running_loop().create_future()
        self._works[work.seed.id] = work
        try:
            await self.say(Make(seed=work.seed))
            return await work.sample
        except MakerLost:
            raise
        except BaseException:
            await self.say(Leave(sample=work.seed.id))
            raise
        finally:
            self._works.pop(work.seed.id, None)

    def hear(self, said: Asked | Made | Broken) -> None:
        work = self._works.get(said.sample.id if isinstance(said, Made) else said.sample)
        if work is None or work.sample.done():  # it was left meanwhile
            return
        match said:
            case Asked():
                work.ask(said, self)
            case Made(sample=sample):
                work.sample.set_result(sample)
            case Broken(error=error, bug=bug):
                where = f"worker {self.worker}: {error}"
                work.sample.set_exception(MakerBug(where) if bug else RunFailed(where))

    def lose(self) -> int:
        """Give up what is being made; how many samples that is."""
        lost = [work for work in self._works.values() if not work.sample.done()]
        for work in lost:
            work.sample.set_exception(MakerLost())
        return len(lost)


@asynccontextmanager
async def taking_in(makers: Makers, host: str, port: int = 0) -> AsyncIterator[Address]:
    """Let makers in who know the word, at `port` of `host` or a free one; yields what they need to know. They end with the
    block.

    Raises:
        UsageError: if the port cannot be had.
    """
    token = secrets.token_urlsafe(32)
    sockets: set[web.WebSocketResponse] = set()

    async def join(request: web.Request) -> web.StreamResponse:
        said = request.headers.get("Authorization", "")
        if not hmac.compare_digest(said.encode(), f"Bearer {token}".encode()):
            raise web.HTTPUnauthorized
        socket = web.WebSocketResponse(
            timeout=GOODBYE_SECONDS, heartbeat=HEARTBEAT, max_msg_size=LONGEST, compress=False
        )
        sockets.add(socket)
        try:
            with suppress(ConnectionError):  # it died as it came
                await socket.prepare(request)
                await makers.take_in(socket)
        finally:
            sockets.discard(socket)
        return socket

    app = web.Application()
    app.router.add_get("/", join)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=GOODBYE_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UsageError(f"scale.port: cannot listen on {host}:{port}: {error.strerror}; name another") from None
        yield Address(f"http://{host}:{runner.addresses[0][1]}/", token)
    finally:
        for socket in list(sockets):
            if socket.prepared:
                await socket.close()
        await runner.cleanup()
