"""A model behind Anthropic's Messages protocol as a teacher: a question as request parameters, a message as a reply, sent by
Anthropic's client library.

Version 2026-10-21 of the protocol has no temperature, top_p, seed and log probabilities.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from core.config.agents import find_effort, reasoning_tokens
from core.config.teachers import ClaudeThinking, TeacherConfig, find_claude_thinking
from core.sample import Message, TokenUsage
from core.secrets import redact_text
from plugins.hosted.hosted_teacher import (
    HostedProtocol,
    HostedTeacher,
    RejectedRequest,
    build_hosted_reply,
    quote_object,
    read_text,
    require_key,
    split_image_url,
)
from plugins.hosted.vendor_schemas import CLAUDE_SCHEMAS, fit_schema
from teachers.base import TeacherQuestion, TeacherReply
from teachers.endpoint_calls import FailedTry, FailureCause
from teachers.openai_chat import (
    MALFORMED,
    InvalidCompletion,
    check_token_count,
    describe_schema,
    list_call_names,
    merge_extra,
    parse_json_object,
)

if TYPE_CHECKING:
    import anthropic

CUT_OFF_REASONS = {"max_tokens", "model_context_window_exceeded", "pause_turn"}
CACHED = {"cache_control": {"type": "ephemeral"}}
"""Marks the end of a prefix to store for five minutes. Without effect for a prefix below the model's minimum."""


def build_anthropic_params(question: TeacherQuestion, model: str, config: TeacherConfig) -> dict[str, Any]:
    """The parameters of `POST /v1/messages`, or of one request of a batch."""
    system = [message.content for message in question.messages if message.role == "system"]
    params: dict[str, Any] = {"model": model, "max_tokens": question.max_tokens}
    thinking = find_claude_thinking(model)
    params |= _build_thinking(question, thinking)
    schema = fit_schema(question.json_schema, CLAUDE_SCHEMAS) if question.json_schema is not None else None
    if question.json_schema is not None and config.structured == "tool":
        thinks = params.get("thinking", {}).get("type") in ("adaptive", "enabled") or (
            "thinking" not in params and thinking.habit != "asked"
        )
        params |= _build_reply_tool(question, forced=thinking.forced_tools and not thinks)
        if params["tool_choice"]["type"] == "auto":
            system.append(f"Give your reply by one call of the tool {question.contract}.")
    elif schema is not None and config.structured == "json_schema":
        output = params.get("output_config", {})
        params["output_config"] = {**output, "format": {"type": "json_schema", "schema": schema}}
    elif question.json_schema is not None:
        system.append(describe_schema(question.json_schema))
    if system:
        params["system"] = [{"type": "text", "text": text} for text in system if text]
    turns = [message for message in question.messages if message.role != "system"]
    params["messages"] = _build_turns(turns)
    if used := {call.name for message in turns for call in message.tool_calls}:
        # Turns with calls need the definitions of their tools, whose parameters the turns do not say.
        known = [{"name": name, "input_schema": {"type": "object"}} for name in sorted(used)]
        params["tools"] = [*params.get("tools", []), *known]
    if "cache_control" not in config.drop:
        _mark_prefix(params, sum(message.role != "system" for message in question.messages[: -question.own_messages]))
    return merge_extra(params, config)


def _build_thinking(question: TeacherQuestion, thinking: ClaudeThinking) -> dict[str, Any]:
    reasoning = question.reasoning
    if reasoning is None:
        return {}
    if reasoning == "off":
        if thinking.habit == "always":
            return {"output_config": {"effort": "low"}}
        return {"thinking": {"type": thinking.off}} if thinking.off else {}
    if thinking.adaptive:
        # The newest models leave out the text of the thinking unless asked for it.
        return {
            "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": find_effort(reasoning)},
        }
    return {"thinking": {"type": "enabled", "budget_tokens": max(1024, reasoning_tokens(reasoning))}}


def _build_reply_tool(question: TeacherQuestion, *, forced: bool) -> dict[str, Any]:
    tool = {"name": question.contract, "description": "Takes the reply.", "input_schema": question.json_schema}
    choice = {"type": "tool", "name": question.contract} if forced else {"type": "auto"}
    return {"tools": [tool], "tool_choice": {**choice, "disable_parallel_tool_use": True}}


def _build_turns(messages: list[Message]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for message, names in zip(messages, list_call_names(messages), strict=True):
        blocks: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
        if message.role == "tool":
            result = {"type": "tool_result", "tool_use_id": names[0], "content": message.content}
            if turns and turns[-1]["role"] == "user" and turns[-1]["content"][0]["type"] == "tool_result":
                turns[-1]["content"].append(result)  # all results of a turn must be in one message
            else:
                turns.append({"role": "user", "content": [result]})
            continue
        blocks += [
            {"type": "tool_use", "id": name, "name": call.name, "input": call.arguments}
            for name, call in zip(names, message.tool_calls, strict=True)
        ]
        blocks += [{"type": "image", "source": _build_image_source(url)} for url in message.images]
        turns.append({"role": message.role, "content": blocks})
    return turns


def _build_image_source(url: str) -> dict[str, Any]:
    media_type, data = split_image_url(url)
    return {"type": "base64", "media_type": media_type, "data": data} if data else {"type": "url", "url": url}


def _mark_prefix(params: dict[str, Any], shared_turns: int) -> None:
    """Mark the end of what calls of one role share: that number of turns, or the system prompt. Other text is not read again."""
    shared = params["messages"][:shared_turns]
    blocks = shared[-1]["content"] if shared else params.get("system")
    if blocks:
        blocks[-1] |= CACHED


def parse_anthropic_message(text: str, question: TeacherQuestion, config: TeacherConfig) -> TeacherReply:
    """A response body as a reply. Raises InvalidCompletion if it is not a message."""
    return read_anthropic_message(parse_json_object(text, "a message"), question, config)


def read_anthropic_message(answer: dict[str, Any], question: TeacherQuestion, config: TeacherConfig) -> TeacherReply:
    """A message, also one of a batch, as a reply. Raises InvalidCompletion if it is not a message."""
    try:
        blocks, stop = answer["content"], read_text(answer["stop_reason"])
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking" and block["thinking"]]
        called = next((block["input"] for block in blocks if block["type"] == "tool_use"), None)
        if called is not None and config.structured == "tool":
            text = json.dumps(called, ensure_ascii=False)
        if stop == "refusal":
            details = answer.get("stop_details") or {}
            text = read_text(details.get("explanation") or text or "I cannot help with that.")
        return build_hosted_reply(
            text, "\n\n".join(thoughts), _read_usage(answer["usage"]), question,
            refused=stop == "refusal", finished=stop not in CUT_OFF_REASONS,
        )  # fmt: skip
    except MALFORMED:
        raise InvalidCompletion(f"not a message: {quote_object(answer)}") from None


def _read_usage(usage: dict[str, Any]) -> TokenUsage:
    """Anthropic counts tokens that were read from its cache or written to it separately; here they are prompt tokens."""
    read = check_token_count(usage.get("cache_read_input_tokens"))
    written = check_token_count(usage.get("cache_creation_input_tokens"))
    completion = check_token_count(usage["output_tokens"])
    details = usage.get("output_tokens_details") or {}
    return TokenUsage(
        calls=1,
        prompt_tokens=check_token_count(usage["input_tokens"]) + read + written,
        completion_tokens=completion,
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=min(completion, check_token_count(details.get("thinking_tokens"))),
    )


NAMED_PARAMS = ("model", "max_tokens", "messages")
"""Required by the library's method; all others go through unread, so that a request may have keys that it does not know."""
NOT_CONNECTED = {"ConnectError", "ConnectTimeout"}
DISCONNECTED = {"RemoteProtocolError"}
"""The server closed the connection before it answered."""


@asynccontextmanager
async def open_anthropic_teacher(config: TeacherConfig) -> AsyncIterator[HostedTeacher]:
    """Raises ProviderError if there is no key."""
    async with open_anthropic_client(config) as client:
        protocol = HostedProtocol(build_anthropic_params, parse_anthropic_message, partial(_send_message, client))
        yield HostedTeacher(config, protocol)


@asynccontextmanager
async def open_anthropic_client(config: TeacherConfig) -> AsyncIterator["anthropic.AsyncAnthropic"]:
    """The library's client, without its own retries, redirects and tracing; only the recipe determines its requests. Raises
    ProviderError if there is no key.
    """
    import anthropic

    key = require_key(config)
    limits = anthropic.DefaultAsyncHttpxClient(
        follow_redirects=False, limits=_connection_limits(config.max_concurrent), trust_env=False
    )
    with _hide_variable("ANTHROPIC_CUSTOM_HEADERS"):
        client = anthropic.AsyncAnthropic(
            api_key=key,
            base_url=config.endpoint.removesuffix("/v1"),
            max_retries=0,
            timeout=config.timeout_seconds,
            http_client=limits,
            open_telemetry=False,
        )
    async with client:
        yield client


@contextmanager
def _hide_variable(name: str) -> Iterator[None]:
    """Without an environment variable that the library reads and that no argument replaces."""
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def _connection_limits(connections: int) -> Any:
    import httpx2  # of the library

    return httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)


async def _send_message(client: "anthropic.AsyncAnthropic", params: dict[str, Any]) -> str:
    others = {key: value for key, value in params.items() if key not in NAMED_PARAMS}
    named = {key: params[key] for key in NAMED_PARAMS if key in params}
    with translate_anthropic_errors():
        response = await client.messages.with_raw_response.create(**named, extra_body=others)
        text: str = response.http_response.text
    return text


@contextmanager
def translate_anthropic_errors() -> Iterator[None]:
    """Around a call of the library. Raises RejectedRequest, TimeoutError or FailedTry."""
    import anthropic

    try:
        yield
    except anthropic.APIStatusError as error:
        raise RejectedRequest(error.status_code, error.response.headers, error.response.text) from None
    except anthropic.APITimeoutError:
        raise TimeoutError from None
    except anthropic.APIConnectionError as error:
        raise explain_connection_failure(error.__cause__ or error) from None
    except anthropic.AnthropicError as error:
        raise FailedTry(redact_text(f"{type(error).__name__}: {error}")) from None


def explain_connection_failure(error: BaseException) -> FailedTry:
    """The failed try that an error of the library's own HTTP client means. Its classes are compared by name."""
    names = {base.__name__ for base in type(error).__mro__}
    text = redact_text(f"{type(error).__name__}: {error}".strip(": "))
    if names & NOT_CONNECTED:
        return FailedTry(f"cannot connect: {text}", FailureCause.network)
    return FailedTry(text, FailureCause.server if names & DISCONNECTED else FailureCause.passing)
