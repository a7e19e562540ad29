"""The chat protocol on the wire: a question as a request body, a response body as a reply. Sends nothing.

Three ways to make a reply fit its contract, since servers differ: `response_format` with a JSON schema, a forced tool
call, and plain words.
"""

import json
import math
from typing import Any

from agents.teachers.base import Certainty, Question, Reply
from core.recipe import TeacherConfig
from core.run import redacted
from core.sample import Usage

MOST_TOKENS = 100_000_000
"""Of one call; ten times the longest context there is."""
LEAST_LOGPROB = -50.0
"""Less likely than any token that was ever chosen; servers write an impossible one in several ways."""


class NotACompletion(Exception):
    """A response that is not what the protocol says; the text shows its beginning."""


def request_body(question: Question, model: str, config: TeacherConfig) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content} for message in question.messages]
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "temperature": question.temperature,
        "top_p": question.top_p,
        "max_tokens": question.max_tokens,
    }
    if config.seeded:
        body["seed"] = question.seed
    if config.logprobs:
        body["logprobs"] = True
    return {**body, **_structure(question, messages, config), **config.sampling}


def _structure(question: Question, messages: list[dict[str, str]], config: TeacherConfig) -> dict[str, Any]:
    name, schema = question.contract, question.json_schema
    if schema is None:
        return {}
    if config.structured == "json_schema":
        return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}}
    if config.structured == "tool":
        tool = {"type": "function", "function": {"name": name, "parameters": schema}}
        return {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": name}}}
    wish = f"Reply with one JSON object and nothing else. Its JSON schema: {json.dumps(schema)}"
    if messages and messages[0]["role"] == "system":
        said = [{**messages[0], "content": f"{messages[0]['content']}\n\n{wish}"}, *messages[1:]]
    else:
        said = [{"role": "system", "content": wish}, *messages]
    return {"messages": said}


def read_completion(text: str, config: TeacherConfig) -> Reply:
    """A response body as a reply. Invalid Unicode is replaced, never passed on.

    Raises:
        NotACompletion: if it is none.
    """
    try:
        answer = json.loads(text)
        choice = answer["choices"][0]
        content = _content(choice["message"], config)
        usage = answer.get("usage") or {}
        return Reply(
            text=content.encode("utf-8", "replace").decode(),
            finished=choice.get("finish_reason") != "length",
            usage=Usage(
                calls=1,
                prompt_tokens=_count(usage.get("prompt_tokens")),
                completion_tokens=_count(usage.get("completion_tokens")),
            ),
            confidence=_confidence(choice.get("logprobs")),
            certainty=certainty_of(choice.get("logprobs")),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
        raise NotACompletion(f"not a chat completion: {redacted(text[:200])!r}") from None


def _count(tokens: Any) -> int:
    """Raises ValueError for what no teacher can have counted: it would end up in the budget."""
    if tokens is not None and not (isinstance(tokens, int) and 0 <= tokens <= MOST_TOKENS):
        raise ValueError(tokens)
    return tokens or 0


def _content(message: dict[str, Any], config: TeacherConfig) -> str:
    if config.structured == "tool" and message.get("tool_calls"):
        return str(message["tool_calls"][0]["function"]["arguments"])
    content = message.get("content") or message.get("refusal") or ""
    return first_object(content) if config.structured == "plain" else str(content)


def first_object(text: str) -> str:
    """The first JSON object in `text`, fences and words around it left out; `text` itself where there is none."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            end = decoder.raw_decode(text, start)[1]
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return text[start:end]
    return text


def _confidence(logprobs: dict[str, Any] | None) -> float | None:
    values = [token["logprob"] for token in (logprobs or {}).get("content") or () if token.get("logprob") is not None]
    return math.exp(sum(values) / len(values)) if values else None


def certainty_of(logprobs: dict[str, Any] | None) -> Certainty | None:
    """Of a choice's `logprobs`; None where the likeliest tokens are not told at every place."""
    tokens = (logprobs or {}).get("content") or ()
    if not tokens or not all(token.get("top_logprobs") for token in tokens):
        return None
    chosen = tuple(_bounded(token["logprob"]) for token in tokens)
    told = ([_bounded(one["logprob"]) for one in token["top_logprobs"]] for token in tokens)
    return Certainty(logprobs=chosen, entropies=tuple(map(_entropy, told)))


def _bounded(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None else min(0.0, max(LEAST_LOGPROB, float(logprob)))


def _entropy(logprobs: list[float]) -> float:
    rest = max(0.0, 1.0 - sum(map(math.exp, logprobs)))
    return -sum(math.exp(one) * one for one in logprobs) - (rest * math.log(rest) if rest else 0.0)
