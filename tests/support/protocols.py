"""The hosted protocols, as tests over all of them need them: a teacher's table, a reply, and where the key is sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class TestedProtocol:
    __test__ = False

    model: str
    path: str
    """Of its calls, after the address."""
    base_path: str
    """The part of `path` that is in `base_url`."""
    reply: Mapping[str, Any]
    """A response with the text `{"answer": "x"}`, 3 tokens of prompt and 4 of reply."""
    read_key: Callable[[web.Request], str]

    def build_table(self, address: str, **changes: object) -> dict[str, Any]:
        plain = {"max_retries": 2, "timeout_seconds": 300, "outage_seconds": 1, "api_key_env": ""}
        return {"model": self.model, "base_url": address + self.base_path, **plain, **changes}

    @property
    def name(self) -> str:
        """The model's name at its endpoint."""
        return self.model.partition("/")[2]


TEXT = '{"answer": "x"}'
PROTOCOLS = {
    "openai": TestedProtocol(
        "openai/m",
        "/v1/chat/completions",
        "/v1",
        {
            "choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        },
        lambda request: request.headers["Authorization"].removeprefix("Bearer "),
    ),
    "anthropic": TestedProtocol(
        "anthropic/claude-opus-4-8",
        "/v1/messages",
        "",
        {
            "type": "message",
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        },
        lambda request: request.headers["Authorization"].removeprefix("Bearer "),
    ),
    "gemini": TestedProtocol(
        "gemini/gemini-2.5-flash",
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "",
        {
            "candidates": [{"content": {"parts": [{"text": TEXT}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4},
        },
        lambda request: request.headers["x-goog-api-key"],
    ),
}
