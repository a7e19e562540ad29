import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from core.config.teachers import TeacherConfig
from plugins.serving.relay import CompletionStream, RelayError, move_thinking, open_relay
from tests.support.http_serving import Handler, serve_handler
from tests.support.thinking_model import write_thinking_model


@asynccontextmanager
async def serve_chat(handler: Handler) -> AsyncIterator[str]:
    async with serve_handler("/v1/chat/completions", handler) as address:
        yield f"{address}/v1"


def build_completion(**message: object) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {}}


def test_a_relay_follows_no_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    status = 307
    monkeypatch.setenv("MYCRED", "sk-canary-93121")
    reached = []

    async def elsewhere(request: web.Request) -> web.Response:
        reached.append(await request.text())
        return web.json_response({})

    async def run() -> None:
        async with serve_chat(elsewhere) as url:
            locations = [
                f"{url}/chat/completions?key=sk-canary-93121",
                "nope://sk-canary-93121/x",
                "/v2?sk-canary-93121",
            ]

            async def answer(_: web.Request) -> web.Response:
                return web.Response(status=status, headers={"Location": locations[0]})

            async with serve_chat(answer) as asked_url:
                config = TeacherConfig(model="openai/m", base_url=asked_url, api_key_env="MYCRED")
                for where in (
                    url.removeprefix("http://").removesuffix("/v1"),
                    "[MYCRED]",
                    "another path of the same host",
                ):
                    wanted = f"status {status} redirects to {where}; redirects are not followed"
                    async with open_relay(config) as relay:
                        with pytest.raises(RelayError, match=re.escape(wanted)) as failed:
                            await relay.complete({"messages": []})
                    assert "sk-canary" not in str(failed.value)
                    locations.pop(0)

    asyncio.run(run())
    assert not reached


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>\na</thi b\n</think>\n\nI use <think>.", "\na</thi b\n", "I use <think>."),
        ("[THINK]a[/THINK]b", "a", "b"),
        (" <think>never ends", "never ends", ""),
        ("<this is text", "", "<this is text"),
        ("\n plain", "", "\n plain"),
        ("<", "", "<"),
        ("", "", ""),
    ],
    ids=lambda value: str(value)[:15],
)
def test_a_streamed_thought_is_moved_out_of_the_answer(
    text: str, thought: str, answer: str, size: int, *, ends: bool
) -> None:
    stream = CompletionStream()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}] * ends
    moved = [*map(stream.move_thinking, chunks), *filter(None, [stream.finish()])]
    deltas = [chunk["choices"][0]["delta"] for chunk in moved]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == thought
    assert "".join(delta.get("content") or "" for delta in deltas) == answer


def test_a_completion_that_is_passed_on_has_no_thinking_in_its_answer() -> None:
    passed = move_thinking(build_completion(content="<think>a</think>b"))
    assert passed["choices"][0]["message"] == {"content": "b", "reasoning_content": "a"}
    for message in ({"content": "b", "reasoning": "a"}, {"content": None, "tool_calls": []}):
        same = build_completion(**message)
        assert move_thinking(same) == same


@pytest.mark.slow
@pytest.mark.xdist_group("relay")
def test_a_relayed_answer_has_no_thinking(tmp_path: Path) -> None:
    write_thinking_model(tmp_path / "thinking.gguf")
    config = TeacherConfig(
        model=f"local/{tmp_path}/thinking.gguf", max_concurrent=4, slot_tokens=2048, timeout_seconds=300
    )
    body = {
        "messages": [{"role": "user", "content": "What is two plus three?"}], "max_tokens": 40, "temperature": 0,
        "thinking_budget_tokens": 8,
    }  # fmt: skip

    async def run(reasoning_format: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        whole = {**body, "reasoning_format": reasoning_format}
        async with open_relay(config) as relay:
            completion = await relay.complete(whole)
            async with relay.stream(whole) as chunks:
                return completion["choices"][0]["message"], [chunk["choices"][0]["delta"] async for chunk in chunks]

    separated, between_tags = (asyncio.run(run(name)) for name in ("deepseek", "none"))
    for message, deltas in (separated, between_tags):
        assert message["reasoning_content"].strip()
        assert "think" not in message["content"]
        for field in ("content", "reasoning_content"):
            assert "".join(delta.get(field) or "" for delta in deltas).strip() == message[field].strip()
    assert separated[0]["content"].strip() == between_tags[0]["content"].strip()
