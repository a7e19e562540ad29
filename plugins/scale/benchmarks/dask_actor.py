"""A Dask actor that answers the calls of samples, next to a WebSocket: calls per second, and what a killed worker repeats.

python -m plugins.scale.benchmarks.dask_actor

Each call carries 3 kB in both directions, as a question and its reply. The actor lives in this process, as a run's
dispatcher does.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from time import perf_counter
from typing import Any

from aiohttp import ClientSession, web
from distributed import Client, LocalCluster, Worker

TEXT = "x" * 3000
CALLS = 500
"""Of each of two workers."""
AT_ONCE = (1, 16)
HELD_SECONDS = 3.0


class CallOwner:
    """Counts the calls that it answers."""

    def __init__(self) -> None:
        self.calls = 0

    async def reply(self, _question: str, seconds: float = 0.0) -> str:
        self.calls += 1
        await asyncio.sleep(seconds)
        return TEXT

    def count(self) -> int:
        return self.calls


async def ask_actor(owner: Any, calls: int, at_once: int, seconds: float = 0.0) -> None:
    gate = asyncio.Semaphore(at_once)

    async def ask() -> None:
        async with gate:
            await owner.reply(TEXT, seconds)

    await asyncio.gather(*(ask() for _ in range(calls)))


async def measure_actor() -> list[str]:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "asynchronous": True}
    lines = []
    async with LocalCluster(**options) as cluster, Client(cluster, asynchronous=True) as client:  # type: ignore[no-untyped-call]
        workers = list(await client.nthreads())
        async with Worker(cluster.scheduler_address, nthreads=1, resources={"owner": 1}):
            owner = await client.submit(CallOwner, actor=True, resources={"owner": 1})
            for at_once in AT_ONCE:
                start = perf_counter()
                jobs = [client.submit(ask_actor, owner, CALLS, at_once, workers=[w], pure=False) for w in workers]
                await client.gather(jobs)
                lines.append(f"actor, {at_once} at once: {2 * CALLS / (perf_counter() - start):.0f} calls/s")
            before = await owner.count()
            job = client.submit(
                ask_actor, owner, 4, 4, HELD_SECONDS, workers=[workers[0]], allow_other_workers=True, pure=False
            )
            await asyncio.sleep(HELD_SECONDS / 2)
            os.kill((await client.run(os.getpid))[workers[0]], signal.SIGKILL)
            await job
            lines.append(f"calls for 4 questions whose worker is killed: {await owner.count() - before}")
        lost = await client.submit(CallOwner, actor=True, workers=[workers[1]])
        os.kill((await client.run(os.getpid))[workers[1]], signal.SIGKILL)
        await asyncio.sleep(HELD_SECONDS)
        try:
            await lost.count()
        except RuntimeError as error:
            lines.append(f"an actor whose worker is killed: {error}")
    return lines


async def measure_socket() -> list[str]:
    async def join(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(json.dumps({"number": json.loads(message.data)["number"], "reply": TEXT}))
        return socket

    app = web.Application()
    app.router.add_get("/", join)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    lines = []
    for at_once in AT_ONCE:
        words = [sys.executable, "-m", "plugins.scale.benchmarks.dask_actor", str(runner.addresses[0][1]), str(at_once)]
        asking = [await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE) for _ in range(2)]
        took = [float((await one.communicate())[0]) for one in asking]
        lines.append(f"socket, {at_once} at once: {2 * CALLS / max(took):.0f} calls/s")
    await runner.cleanup()
    return lines


async def ask_socket(port: int, at_once: int) -> float:
    """Seconds for `CALLS` calls."""
    waiting: dict[int, asyncio.Future[str]] = {}
    gate = asyncio.Semaphore(at_once)
    async with ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/") as socket:

        async def read() -> None:
            async for message in socket:
                answer = json.loads(message.data)
                waiting.pop(answer["number"]).set_result(answer["reply"])

        async def ask(number: int) -> None:
            async with gate:
                waiting[number] = asyncio.get_running_loop().create_future()
                await socket.send_str(json.dumps({"number": number, "question": TEXT}))
                await waiting[number]

        reader = asyncio.create_task(read())
        start = perf_counter()
        await asyncio.gather(*map(ask, range(CALLS)))
        took = perf_counter() - start
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
    return took


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.stdout.write(f"{asyncio.run(ask_socket(int(sys.argv[1]), int(sys.argv[2])))}\n")
    else:
        sys.stdout.write("\n".join([*asyncio.run(measure_socket()), *asyncio.run(measure_actor())]) + "\n")
