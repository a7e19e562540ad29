"""A maker: makes samples for a run whose teachers, budget and files another process has. Knows neither what started it nor
where samples go.
"""

import asyncio
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import aiohttp
from aiohttp import WSCloseCode

from agents.crew import Crew
from agents.line import HEARTBEAT, LONGEST, TO_MAKER, Answered, Asked, Broken, FromMaker, Joined, Leave, Made, Make
from agents.plan import Plan
from agents.produce import make_sample
from agents.teachers.base import Ask, CallFailed, Question, Reply
from core.errors import StillhouseError
from core.sample import Seed

HUNG_UP = (WSCloseCode.OK, WSCloseCode.GOING_AWAY)


@dataclass(frozen=True)
class Address:
    """Where a run takes makers in, and the word that lets them in."""

    url: str
    token: str = field(repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


async def make_for(address: Address, plan: Plan | None, joined: Joined) -> bool:
    """Make what the run asks for, until it hangs up; whether it did, or the line broke. Without a plan, only tell it the
    problem.

    Raises:
        aiohttp.ClientError: if it cannot be reached.
    """
    async with (
        aiohttp.ClientSession(headers=address.headers) as session,
        session.ws_connect(address.url, heartbeat=HEARTBEAT, max_msg_size=LONGEST) as socket,
    ):
        maker = _Maker(socket)
        await maker.say(joined)
        if plan:
            await maker.serve(plan)
        return plan is None or socket.close_code in HUNG_UP


class _Maker:
    """One line, and the samples that are being made for it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Reply]] = {}
        self._making: dict[str, asyncio.Task[None]] = {}

    async def say(self, message: FromMaker) -> None:
        await self._socket.send_str(message.model_dump_json())

    async def serve(self, plan: Plan) -> None:
        try:
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                match TO_MAKER.validate_json(message.data):
                    case Make(seed=seed):
                        self._making[seed.id] = asyncio.create_task(self._make(plan, seed))
                    case Answered() as answered:
                        self._answer(answered)
                    case Leave(sample=sample) if sample in self._making:
                        self._making[sample].cancel()
        finally:
            for task in list(self._making.values()):
                task.cancel()
            await asyncio.gather(*self._making.values(), return_exceptions=True)

    async def _make(self, plan: Plan, seed: Seed) -> None:
        try:
            await self.say(Made(sample=await make_sample(_FarCrew(plan, self, seed.id), seed)))
        except StillhouseError as error:
            await self.say(Broken(sample=seed.id, error=str(error), bug=False))
        except Exception:
            await self.say(Broken(sample=seed.id, error=traceback.format_exc(), bug=True))
        finally:
            del self._making[seed.id]

    async def ask(self, sample: str, teacher: str, question: Question, ask: Ask) -> Reply:
        number = next(self._numbers)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            await self.say(Asked(number=number, sample=sample, teacher=teacher, question=question, ask=ask))
            return await future
        finally:
            del self._asked[number]

    def _answer(self, answered: Answered) -> None:
        future = self._asked.get(answered.number)
        if future is None or future.done():
            return
        if answered.reply is None:
            future.set_exception(CallFailed(answered.failure))
        else:
            future.set_result(answered.reply)


@dataclass(frozen=True)
class _FarCrew(Crew):
    """The crew of a sample that is made away from the teachers."""

    maker: _Maker
    sample: str

    async def reply(self, name: str, question: Question, ask: Ask) -> Reply:
        return await self.maker.ask(self.sample, name, question, ask)
