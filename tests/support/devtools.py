"""A page in a headless Chromium, driven by its DevTools protocol: keys are pressed as a person presses them."""

import asyncio
import itertools
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.browser import BROWSERS
from tests.support.waiting import HANG_SECONDS

KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, "")}
"""Windows key codes and texts of keys that are no letters."""
CONTROL, SHIFT = 2, 8
"""Modifiers of the protocol."""


class BrowserPage:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        """Console messages, exceptions and what the Content-Security-Policy refused."""
        self.requests: list[str] = []
        self._loaded = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                self._replies.pop(event["id"]).set_result(event)
            elif event["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(event["params"]["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded":
                self.complaints.append(event["params"]["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(event["params"]["args"]))
            elif event["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif event["method"] == "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": number, "method": method, "params": params, **session})
        answer = await asyncio.wait_for(reply, HANG_SECONDS)
        assert "error" not in answer, answer
        return dict(answer["result"])

    async def attach(self) -> None:
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def visit(self, url: str) -> None:
        """Open a page and wait until it is loaded: what is asked in between may stay without an answer."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), HANG_SECONDS)

    async def evaluate(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_for(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        for _ in range(int(HANG_SECONDS / 0.1)):
            if await self.evaluate(f"Boolean({condition})"):
                return
            await asyncio.sleep(0.1)
        text = (await self.evaluate("document.body.innerText"))[:1000]
        raise AssertionError(f"never true: {condition}\n{text}\n{self.complaints}")

    async def press(self, key: str, modifiers: int = 0) -> None:
        code, text = KEYS[key] if key in KEYS else (ord(key.upper()) if key.isalnum() else 0, key)
        shown = {"text": text, "unmodifiedText": text} if text and not modifiers & CONTROL else {}
        known = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if shown else "rawKeyDown", **known, **shown)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    async def write(self, text: str) -> None:
        """As if typed where the focus is."""
        await self.call("Input.insertText", text=text)

    async def show_as(self, width: int, height: int, scheme: str, *, mobile: bool = False) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


@asynccontextmanager
async def open_browser_page(profile: Path) -> AsyncIterator[BrowserPage]:
    """A blank page. Skips if no browser is installed."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    options = ["--headless", "--disable-gpu", "--disable-background-networking", "--remote-debugging-port=0"]
    process = await asyncio.create_subprocess_exec(
        browser, *options, *as_root, f"--user-data-dir={profile}", stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        port_file = profile / "DevToolsActivePort"  # written when it listens: the port, and the path of the socket
        async with asyncio.timeout(HANG_SECONDS):
            while not port_file.exists() or len(parts := port_file.read_text().split()) < 2:
                assert process.returncode is None, "the browser ended"
                await asyncio.sleep(0.1)
        address = f"ws://127.0.0.1:{parts[0]}{parts[1]}"
        async with aiohttp.ClientSession() as client, client.ws_connect(address, max_msg_size=0) as socket:
            page = BrowserPage(socket)
            await page.attach()
            yield page
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
