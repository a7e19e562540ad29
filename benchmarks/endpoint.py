"""A chat endpoint that answers by a hash of the request and misbehaves as told: the same teacher for us and for peers.

Knows no pipeline. What it writes is nonsense of the right form; what it was asked stands in its log.

    python -m benchmarks.endpoint --latency-seconds 0.05 --slots 64 --prompts malformed=0.3 --log calls.jsonl
"""

import argparse
import asyncio
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import IO, Any, NamedTuple

from aiohttp import web

from benchmarks.answers import ParsedRequest, build_completion
from benchmarks.wire_formats import ANTHROPIC, GEMINI, OPENAI, WireFormat

FAULTS = (
    "rate_limited",  # 429
    "unavailable",  # 500 or 503
    "hang",  # no answer, ever
    "cut",  # the connection ends in the middle of the body
    "garbage",  # 200, and a body that is not JSON
    "malformed",  # content that is half a JSON text
    "truncated",  # the same with finish_reason `length`
    "empty",  # no content
    "refusal",  # `message.refusal` in the place of content
    "wrong_schema",  # JSON of another form
    "invalid_unicode",  # a lone surrogate's escape, or bytes that are not UTF-8
    "too_long",  # several MB of answer
)
HOLD_SECONDS = 0.02
LOST_STATUS = 0
"""The status in the log of a request that got no whole answer."""


@dataclass(frozen=True)
class Behaviour:
    seed: int = 0
    """Of every draw."""
    latency_seconds: float = 0.0
    """Mean time that one answer takes once it has a slot."""
    latency_sigma: float = 0.0
    """Of the lognormal that it is drawn from; 0 is fixed, 1 has a 99th percentile of six times the mean."""
    slots: int = 0
    """Requests served at once; others wait in line. 0: all."""
    capacity: int = 0
    """With more than this many in the house, a request is refused with 429. 0: never."""
    retry_after: float = -1.0
    """The Retry-After of a 429, seconds; negative: the header is not sent."""
    requests: Mapping[str, float] = field(default_factory=dict)
    """Faults as shares of requests, drawn anew each time."""
    prompts: Mapping[str, float] = field(default_factory=dict)
    """Faults as shares of prompts: asked again, the same prompt meets the same fault."""
    heals_after: int = 0
    """A faulty prompt is answered properly after this many failures. 0: never."""
    tag: str = ""
    """A regular expression: its last match in the messages stands for the prompt when `prompts` is drawn, so that a
    prompt put in other words stays the same one, and one without it (a client's probe) meets no fault. Empty: all
    messages stand for themselves."""
    dead_after: int = 0
    """After this many requests every connection is closed without an answer, until the file `back` exists. 0: never."""
    held_after: int = 0
    """After this many requests nobody gets an answer before the file `back` exists. 0: never."""
    back: str = ""

    def fault_of_prompt(self, identity: str) -> str:
        """The fault that this prompt meets, or nothing."""
        if not identity:
            return ""
        return _choose_fault(self.prompts, Random(f"{self.seed}/prompt/{identity}").random())

    def fault_of_request(self, number: int) -> str:
        return _choose_fault(self.requests, Random(f"{self.seed}/request/{number}").random())

    def latency(self, number: int) -> float:
        """Seconds that request `number` takes: lognormal with the mean `latency_seconds`."""
        spread = self.latency_sigma
        tail = Random(f"{self.seed}/latency/{number}").gauss(-spread * spread / 2, spread) if spread else 0.0
        return self.latency_seconds * math.exp(tail)


def _choose_fault(shares: Mapping[str, float], draw: float) -> str:
    return next((name for name, sum_ in zip(shares, accumulate(shares.values()), strict=True) if draw < sum_), "")


class LoggedRequest(NamedTuple):
    """One request, as logged before its answer is sent."""

    time: float
    prompt: str
    """A hash of everything that was asked, seed included: equal for a request that is repeated."""
    tag: str
    contract: str
    """The names in the schema, or nothing where none was asked for."""
    status: int
    fault: str
    service: float
    """Seconds in a slot, as planned."""


class FaultyEndpoint:
    """The endpoint's state while it runs."""

    def __init__(self, behaviour: Behaviour, file: IO[str] | None) -> None:
        self.url = ""
        self.log: list[LoggedRequest] = []
        self.over = asyncio.Event()
        self._behaviour = behaviour
        self._file = file
        self._gate = asyncio.Semaphore(behaviour.slots or 2**31)
        self._numbers = iter(range(2**62))
        self._inside = 0
        self._failures: Counter[tuple[str, str]] = Counter()

    async def answer(self, request: web.Request, wire: WireFormat = OPENAI) -> web.StreamResponse:
        self._inside += 1
        try:
            return await self._answer(request, wire.read(await request.json()), wire)
        finally:
            self._inside -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any], wire: WireFormat) -> web.StreamResponse:
        told = self._behaviour
        asked = ParsedRequest.of(body, told.tag)
        number = next(self._numbers)
        if self._away(told.dead_after, number):
            return self._close(request, asked, "dead")
        while self._away(told.held_after, number):
            await asyncio.sleep(HOLD_SECONDS)
        if told.capacity and self._inside > told.capacity:
            return self._refuse(429, asked, "capacity")
        fault = self._fault(asked, number)
        if fault == "rate_limited":
            return self._refuse(429, asked, fault)
        if fault == "unavailable":
            return self._refuse((500, 503)[number % 2], asked, fault)
        if fault == "hang":
            self._note(asked, LOST_STATUS, fault)
            await self.over.wait()
            return self._cut_off(request)
        service = told.latency(number)
        async with self._gate:
            await asyncio.sleep(service)
        text = wire.write(build_completion(body, asked, fault))
        if fault == "cut":
            return await self._cut(request, asked, text)
        self._note(asked, 200, fault, service)
        return web.Response(body=text, content_type="application/json")

    def _away(self, after: int, number: int) -> bool:
        return 0 < after <= number and not Path(self._behaviour.back).exists()

    def _fault(self, asked: ParsedRequest, number: int) -> str:
        """Of the request, or of its prompt unless that has failed often enough."""
        if fault := self._behaviour.fault_of_prompt(asked.identity):
            self._failures[asked.identity, asked.contract] += 1
            healed = 0 < self._behaviour.heals_after < self._failures[asked.identity, asked.contract]
            if not healed:
                return fault
        return self._behaviour.fault_of_request(number)

    def _note(self, asked: ParsedRequest, status: int, fault: str, service: float = 0.0) -> None:
        entry = LoggedRequest(time.time(), asked.hash, asked.tag, asked.contract, status, fault, service)
        self.log.append(entry)
        if self._file:
            self._file.write(json.dumps(entry._asdict()) + "\n")
            self._file.flush()

    def _refuse(self, status: int, asked: ParsedRequest, fault: str) -> web.Response:
        self._note(asked, status, fault)
        wait = self._behaviour.retry_after
        headers = {"Retry-After": f"{wait:g}"} if status == 429 and wait >= 0 else {}
        return web.json_response({"error": {"message": fault, "type": fault}}, status=status, headers=headers)

    def _close(self, request: web.Request, asked: ParsedRequest, fault: str) -> web.Response:
        self._note(asked, LOST_STATUS, fault)
        return self._cut_off(request)

    @staticmethod
    def _cut_off(request: web.Request) -> web.Response:
        if request.transport:
            request.transport.abort()
        return web.Response(status=503)

    async def _cut(self, request: web.Request, asked: ParsedRequest, text: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(text)), "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(text[: len(text) // 2])
        self._close(request, asked, "cut")
        return response


async def _list_models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "model", "object": "model"}]})


@asynccontextmanager
async def serve_in_process(
    behaviour: Behaviour, *, port: int = 0, log: Path | None = None
) -> AsyncIterator[FaultyEndpoint]:
    """The endpoint in this process; `url` goes up to and with `/v1`."""
    file = log.open("a", encoding="utf-8") if log else None
    server = FaultyEndpoint(behaviour, file)
    app = web.Application(client_max_size=64 * 2**20)
    for wire in (OPENAI, ANTHROPIC, GEMINI):
        app.router.add_post(wire.path, partial(server.answer, wire=wire))
    app.router.add_get("/v1/models", _list_models)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        server.over.set()
        await runner.cleanup()
        if file:
            file.close()


@contextmanager
def serve_in_child(behaviour: Behaviour, log: Path, port: int = 0) -> Iterator[str]:
    """The endpoint in a process of its own, on `port` or any free one; its URL."""
    command = [sys.executable, "-m", "benchmarks.endpoint", "--log", str(log), "--port", str(port)]
    for name, value in asdict(behaviour).items():
        text = ",".join(f"{key}={share}" for key, share in value.items()) if isinstance(value, dict) else str(value)
        command.append(f"--{name.replace('_', '-')}={text}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def read_log(path: Path) -> list[LoggedRequest]:
    return [LoggedRequest(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _parse_shares(text: str) -> dict[str, float]:
    found = {name: float(share) for name, _, share in (part.partition("=") for part in text.split(",") if part)}
    if unknown := set(found) - set(FAULTS):
        raise argparse.ArgumentTypeError(f"unknown faults {sorted(unknown)}; known are {', '.join(FAULTS)}")
    return found


async def _serve(behaviour: Behaviour, port: int, log: Path | None) -> None:
    async with serve_in_process(behaviour, port=port, log=log) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    plain = Behaviour()
    for each in fields(Behaviour):
        value = getattr(plain, each.name)
        kind = _parse_shares if isinstance(value, dict) else type(value)
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=value)
    options = vars(parser.parse_args())
    port, log = options.pop("port"), options.pop("log")
    try:
        asyncio.run(_serve(Behaviour(**options), port, log))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
