"""A student that sees, behind the chat server."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from flows.terminal.console import CommandSession
from plugins.serving.cascade.chat_server import open_chat_router, serve_router
from plugins.serving.cascade.serving_setup import ServingSetup
from students.gguf_export import export_gguf
from tests.support.colored_pictures import COLORS, QUESTION, draw_square


@pytest.mark.slow
@pytest.mark.xdist_group("students")
def test_it_is_served_with_images_of_the_request_only(seeing_student: Path) -> None:
    setup = ServingSetup(export_gguf(seeing_student, "q8_0").path, None, None, {"temperature": 0, "max_tokens": 12}, "")

    async def ask(http: aiohttp.ClientSession, url: str, image: str, *, order: int = 1) -> tuple[int, Any]:
        parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": image}}][::order]
        body = {"model": "stillhouse", "messages": [{"role": "user", "content": parts}]}
        async with http.post(f"{url}/chat/completions", json=body) as response:
            return response.status, await response.json()

    async def converse() -> None:
        async with open_chat_router(setup, 1, 512, "student") as router, aiohttp.ClientSession() as http:
            session, place = CommandSession(), asyncio.get_running_loop().create_future()
            session.quiet = True
            task = asyncio.create_task(serve_router(router, "127.0.0.1", 0, session, place.set_result))
            url = await place
            right = 0
            for color in COLORS:
                answers = [await ask(http, url, draw_square(color, Random(color)), order=order) for order in (1, -1)]
                assert [status for status, _ in answers] == [200, 200], answers
                texts = [reply["choices"][0]["message"]["content"] for _, reply in answers]
                assert texts[0] == texts[1], "the order of text and image in the request does not matter"
                right += texts[0] == color
            assert right >= 4
            for image, fault in (
                ("http://127.0.0.1:9/a.png", "nothing is downloaded or opened"),
                ("file:///etc/passwd", "nothing is downloaded or opened"),
                ("data:image/png;base64,AAAA", "an image is no PNG, JPEG, WEBP, GIF, BMP or TIFF image"),
            ):
                status, reply = await ask(http, url, image)
                assert status == 400
                assert fault in reply["error"]["message"]
            session.stop.set()
            await task

    asyncio.run(converse())
