"""What the endpoint says: one request in, the body of a chat completion out, whole or with a fault. Knows no server."""

import json
import re
import time
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple

from benchmarks.instances import ValueWriter, build_value, read_message_text, stretch_value

LONG_BYTES = 4 * 2**20
IN_PROMPT = re.compile(r"<response_schema>\n(.*?)\n</response_schema>", re.DOTALL)
"""How NeMo Data Designer asks for JSON, which it wants in a Markdown fence."""
FENCE = "fence"
UNREADABLE = (r"\ud800", "\udcff")
"""The JSON escape of half a character, and what becomes the byte 0xff."""


class ParsedRequest(NamedTuple):
    """What matters of a request."""

    hash: str
    tag: str
    identity: str
    """What stands for the prompt: the tag, or all that is said; nothing where a tag is looked for and not found."""
    contract: str
    schema: dict[str, Any] | None
    form: str
    """How the value is wrapped: `fence`, the name of the tool that must be called, or nothing."""

    @classmethod
    def of(cls, body: dict[str, Any], tag: str) -> "ParsedRequest":
        said = _join_messages(body)
        found = re.findall(tag, said)[-1] if tag and re.search(tag, said) else ""
        schema, form = _find_schema(body)
        contract = ",".join(schema.get("properties", {})) if schema else ""
        whole = blake2b(f"{said}{body.get('seed')}{contract}".encode("utf-8", "replace"), digest_size=12).hexdigest()
        return cls(whole, found, found if tag else said, contract, schema, form)


def _find_schema(body: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The JSON schema that is asked for, and the form of the answer."""
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return wanted["json_schema"].get("schema") or {}, ""
    tools, choice = body.get("tools") or [], body.get("tool_choice")
    if not tools or choice in (None, "none", "auto"):
        shown = IN_PROMPT.search(_join_messages(body))
        return (json.loads(shown.group(1)), FENCE) if shown else (None, "")
    name = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["function"]["name"]
    chosen = next(tool["function"] for tool in tools if tool["function"]["name"] == name)
    return chosen.get("parameters") or {}, name


def _join_messages(body: dict[str, Any]) -> str:
    """The texts of all messages."""
    return "\n".join(map(read_message_text, body.get("messages") or ()))


def build_completion(body: dict[str, Any], asked: ParsedRequest, fault: str) -> bytes:
    """The body of the answer, with its fault."""
    rng = Random(asked.hash)
    value = build_value(asked.schema, ValueWriter.of(rng, body["messages"]))
    if fault == "too_long":
        value = stretch_value(value, LONG_BYTES)
    text = value if isinstance(value, str) else json.dumps(value)
    if asked.form == FENCE:
        text = f"```json\n{text}\n```"
    text = {
        "malformed": text[: len(text) // 2],
        "truncated": text[: len(text) // 2],
        "empty": "",
        "wrong_schema": '{"reply": {"kind": "another form", "of": [1, 2, 3]}}',
        "invalid_unicode": f'{text[:-2]}{rng.choice(UNREADABLE)}"}}',
        "garbage": "<html><body>Bad gateway</body></html>",
    }.get(fault, text)
    if fault == "garbage":
        return text.encode()
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if fault == "refusal":
        message |= {"content": None, "refusal": "I'm sorry, but I cannot help with that request."}
    elif asked.form not in ("", FENCE):
        call = {"id": f"call_{asked.hash}", "type": "function", "function": {"name": asked.form, "arguments": text}}
        message |= {"content": None, "tool_calls": [call]}
    stop = "tool_calls" if message.get("tool_calls") else "stop"
    choice = {"index": 0, "message": message, "finish_reason": "length" if fault == "truncated" else stop}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": [_draw_token(rng, word) for word in text[:10_000].split()]}
    prompt, written = len(_join_messages(body).split()), len(text.split())
    answer = {
        "id": f"chatcmpl-{asked.hash}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model", "model"),
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
    }
    raw = fault == "invalid_unicode"
    return json.dumps(answer, ensure_ascii=not raw).encode("utf-8", "surrogateescape" if raw else "strict")


def _draw_token(rng: Random, word: str) -> dict[str, Any]:
    return {"token": f" {word}", "logprob": round(-rng.expovariate(1.4), 4), "bytes": None, "top_logprobs": []}
