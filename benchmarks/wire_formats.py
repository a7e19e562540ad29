"""The protocols that the endpoint speaks: each request as an OpenAI chat request, and an OpenAI completion as its response.

Checks nothing: tests/support has strict servers.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class WireFormat(NamedTuple):
    path: str
    read: Callable[[dict[str, Any]], dict[str, Any]]
    """A request of this protocol as one of OpenAI's."""
    write: Callable[[bytes], bytes]
    """A completion of OpenAI's as a response of this protocol; a body that is no completion stays as it is."""


def _read_anthropic(body: dict[str, Any]) -> dict[str, Any]:
    system = "\n".join(block["text"] for block in body.get("system", ()))
    turns = [(turn["role"], "".join(block.get("text", "") for block in turn["content"])) for turn in body["messages"]]
    schema = body.get("output_config", {}).get("format", {}).get("schema")
    return _build_chat(system, turns, schema, body["max_tokens"])


def _read_gemini(body: dict[str, Any]) -> dict[str, Any]:
    def join(content: dict[str, Any]) -> str:
        return "".join(part.get("text", "") for part in content.get("parts", ()))

    roles = {"model": "assistant", "user": "user"}
    generation = body["generationConfig"]
    chat = _build_chat(
        join(body.get("systemInstruction", {})),
        [(roles[content["role"]], join(content)) for content in body["contents"]],
        generation.get("responseJsonSchema"),
        generation["maxOutputTokens"],
    )
    return chat | {"seed": generation.get("seed")}


def _build_chat(system: str, turns: list[tuple[str, str]], schema: Any, most: int) -> dict[str, Any]:
    messages = [{"role": role, "content": text} for role, text in [("system", system), *turns] if text]
    body: dict[str, Any] = {"model": "m", "messages": messages, "max_tokens": most}
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    return body


def _write(convert: Callable[[str, str, dict[str, int]], dict[str, Any]]) -> Callable[[bytes], bytes]:
    def write(completion: bytes) -> bytes:
        text = completion.decode("utf-8", "surrogateescape")
        raw = any("\udc80" <= letter <= "\udcff" for letter in text)  # bytes that are not UTF-8 stay so
        try:
            answer = json.loads(text)
        except ValueError:
            return completion
        choice = answer["choices"][0]
        said = choice["message"]["content"] or choice["message"]["refusal"] or ""
        value = convert(said, choice["finish_reason"], answer["usage"])
        return json.dumps(value, ensure_ascii=not raw).encode("utf-8", "surrogateescape" if raw else "strict")

    return write


def _build_message(text: str, stop: str, usage: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": {"length": "max_tokens"}.get(stop, "end_turn"),
        "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]},
    }


def _build_content(text: str, stop: str, usage: dict[str, int]) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": text}] if text else []}
    counts = {"promptTokenCount": usage["prompt_tokens"], "candidatesTokenCount": usage["completion_tokens"]}
    reason = {"length": "MAX_TOKENS"}.get(stop, "STOP")
    return {"candidates": [{"content": content, "finishReason": reason}], "usageMetadata": counts}


OPENAI = WireFormat("/v1/chat/completions", lambda body: body, lambda completion: completion)
ANTHROPIC = WireFormat("/v1/messages", _read_anthropic, _write(_build_message))
GEMINI = WireFormat(r"/v1beta/models/{model:[\w.-]+}:generateContent", _read_gemini, _write(_build_content))
