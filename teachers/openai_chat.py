"""The OpenAI chat protocol: a question as a request body, a response body as a reply. Sends nothing.

A reply is made to match its schema in one of three ways, since servers differ: `response_format` with a JSON schema, a forced
tool call, or instructions in the prompt.
"""

import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from core.config.teachers import TeacherConfig
from core.sample import Message, ReplyToken, TokenUsage, ToolCall
from core.secrets import redact_excerpt
from core.thinking import split_thinking
from teachers.base import TeacherQuestion, TeacherReply, TokenCertainty
from teachers.grammar_bounds import simplify_schema
from teachers.thinking_keys import build_thinking_keys, is_json_object, read_message_reasoning, read_message_text

MAX_TOKEN_COUNT = 100_000_000
"""Of one call; ten times the longest known context."""
CHARACTERS_PER_TOKEN = 32
"""Maximum, averaged over a reply: English has 4 to 5. Parsing takes time in proportion to the length, so an endpoint that
ignores `max_tokens` must not determine it."""
KEPT_CHARACTERS = 4_096
"""A JSONDecodeError counts the lines of all text before it, so parsed text beyond this length is dropped."""

MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a response raises that is not as its protocol says."""


class InvalidCompletion(Exception):
    """A response that violates the protocol; the message quotes its beginning."""


def build_request_body(question: TeacherQuestion, model: str, config: TeacherConfig) -> dict[str, Any]:
    turns = question.messages
    if question.json_schema is not None and config.structured == "plain":
        turns = _insert_instructions(turns, describe_schema(question.json_schema))
    newer = config.chat_dialect == "openai"
    body: dict[str, Any] = {
        "model": model,
        "messages": build_messages(turns, images_first=config.model.startswith("local/")),
        # api.openai.com rejects `max_tokens` for its reasoning models and accepts the newer name for all.
        "max_completion_tokens" if newer else "max_tokens": question.max_tokens,
    }
    if not config.rejects_sampling:
        body |= {"temperature": question.temperature, "top_p": question.top_p, "seed": question.seed}
    if config.returns_logprobs:
        body |= {"logprobs": True, **({"top_logprobs": question.top_logprobs} if question.top_logprobs else {})}

    name, schema = question.contract, question.json_schema
    if schema is not None and config.structured != "plain" and config.model.startswith("local/"):
        schema = simplify_schema(schema)
        if schema is None:
            body["response_format"] = {"type": "json_object"}

    if schema is None:
        pass  # any text, or any JSON object
    elif config.structured == "json_schema":
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
    elif config.structured == "tool":
        body["tools"] = [{"type": "function", "function": {"name": name, "parameters": schema}}]
        body["tool_choice"] = {"type": "function", "function": {"name": name}}
    body |= build_thinking_keys(question.reasoning, config.chat_dialect, model)
    return merge_extra(body, config)


def describe_schema(schema: Mapping[str, Any]) -> str:
    """The instruction that replaces structured output."""
    return f"Reply with one JSON object and nothing else. Its JSON schema: {json.dumps(schema, ensure_ascii=False)}"


def _insert_instructions(messages: Sequence[Message], words: str) -> list[Message]:
    """The messages with `words` at the end of the system message, which is added if there is none."""
    if messages and messages[0].role == "system":
        system = messages[0].model_copy(update={"content": f"{messages[0].content}\n\n{words}"})
        return [system, *messages[1:]]
    return [Message(role="system", content=words), *messages]


def build_messages(turns: Sequence[Message], *, images_first: bool = False) -> list[dict[str, Any]]:
    """Images follow the text; or are in front of it, as students that see are trained."""
    messages: list[dict[str, Any]] = []
    for turn, names in zip(turns, list_call_names(turns), strict=True):
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.images:
            images = [{"type": "image_url", "image_url": {"url": url}} for url in turn.images]
            text = {"type": "text", "text": turn.content}
            message["content"] = [*images, text] if images_first else [text, *images]
        if turn.tool_calls:
            message["tool_calls"] = [_build_call(*named) for named in zip(names, turn.tool_calls, strict=True)]
        if turn.role == "tool":
            message["tool_call_id"] = names[0]
        messages.append(message)
    return messages


def list_call_names(messages: Sequence[Message]) -> list[list[str]]:
    """Per message, the identifiers of its calls, or that of the call whose result it is: results are in the order of calls."""
    names: list[list[str]] = []
    open_calls: list[str] = []
    for number, message in enumerate(messages):
        made = [f"call_{number}_{index}" for index in range(len(message.tool_calls))]
        open_calls += made
        if message.role == "tool":
            made = [open_calls.pop(0) if open_calls else "call"]
        names.append(made)
    return names


def _build_call(identifier: str, call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": identifier, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def merge_extra(body: dict[str, Any], config: TeacherConfig) -> dict[str, Any]:
    """`body` with the keys of `config.extra`, tables merged, and without those of `config.drop`."""

    def merge(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        both = {
            key: merge(old[key], new[key])
            for key in new
            if isinstance(old.get(key), dict) and isinstance(new[key], dict)
        }
        return {**old, **new, **both}

    merged = merge(body, config.extra)
    return {key: value for key, value in merged.items() if key not in config.drop}


def parse_json_object(text: str, what: str = "a JSON object") -> dict[str, Any]:
    """The object of a response body. Raises InvalidCompletion, with `what` it should be, if it is no JSON object."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise InvalidCompletion(f"not {what}: {redact_excerpt(text, 200)!r}")
    return answer


def parse_completion(
    text: str, config: TeacherConfig, max_tokens: int = MAX_TOKEN_COUNT, *, top_logprobs: int = 0
) -> TeacherReply:
    """A response body as a reply, with its tokens if `top_logprobs` of each place are to be kept. Invalid Unicode is replaced.

    Thinking is no part of its text. A reply that is too long for `max_tokens` tokens is cut, and counts as cut off.

    Raises:
        InvalidCompletion: if it is not a completion.
    """
    try:
        answer = json.loads(text)
        choice = answer["choices"][0]
        message = choice["message"]
        longest = CHARACTERS_PER_TOKEN * max_tokens
        calls = message.get("tool_calls") if config.structured == "tool" else None
        whole = _read_arguments(calls[0]) if calls else read_message_text(message)
        reasoning = read_message_reasoning(message)
        if not whole and is_json_object(reasoning):
            whole, reasoning = reasoning, ""  # vLLM's parsers take an answer without thinking for thinking (#48863)
        cut_off = len(reasoning) + len(whole) > longest
        reasoning = reasoning[:longest]
        whole = whole[: longest - len(reasoning)]
        thought, content, closed = (reasoning, whole, True) if calls else split_thinking(whole)
        reasoning = reasoning or thought
        content = find_json_object(content) if config.structured == "plain" else content
        readable = _replace_surrogates(content)
        tokens = list_answer_tokens(choice, content, reasoning)
        values = [token["logprob"] for token in tokens if token.get("logprob") is not None]
        return TeacherReply(
            text=readable,
            finished=choice.get("finish_reason") != "length" and closed and not cut_off,
            usage=_read_usage(answer.get("usage") or {}),
            reasoning=_replace_surrogates(reasoning),
            confidence=math.exp(sum(values) / len(values)) if values else None,
            certainty=build_certainty(tokens),
            tokens=read_reply_tokens(list_tokens(choice), readable, top_logprobs) if top_logprobs else (),
        )
    except MALFORMED:
        raise InvalidCompletion(f"not a chat completion: {redact_excerpt(text, 200)!r}") from None


def _read_arguments(call: Mapping[str, Any]) -> str:
    """The protocol has a text; some servers send the object."""
    arguments = call["function"]["arguments"]
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _read_usage(usage: Mapping[str, Any]) -> TokenUsage:
    """The token counts of a completion. Raises ValueError for an impossible count, which would be charged to the budget."""
    prompt_details = usage.get("prompt_tokens_details") or {}
    completion_details = usage.get("completion_tokens_details") or {}
    prompt, completion = (
        check_token_count(usage.get("prompt_tokens")),
        check_token_count(usage.get("completion_tokens")),
    )
    # DeepSeek and Moonshot have their own names for cached tokens.
    cached = prompt_details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens")
    reasoning = check_token_count(completion_details.get("reasoning_tokens"))
    if reasoning and check_token_count(usage.get("total_tokens")) == prompt + completion + reasoning:
        completion += reasoning  # xAI does not count thinking as completion
    return TokenUsage(
        calls=1,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(prompt, check_token_count(cached)),
        cache_write_tokens=min(prompt, check_token_count(prompt_details.get("cache_write_tokens"))),
        reasoning_tokens=min(completion, reasoning),
    )


def check_token_count(tokens: Any) -> int:
    """Raises ValueError for an impossible count."""
    if tokens is not None and not (isinstance(tokens, int) and 0 <= tokens <= MAX_TOKEN_COUNT):
        raise ValueError(tokens)
    return tokens or 0


def list_tokens(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((choice.get("logprobs") or {}).get("content") or ())


def list_answer_tokens(choice: Mapping[str, Any], content: str, reasoning: str) -> list[dict[str, Any]]:
    """The tokens of a choice with their probabilities, without those of the thinking, which come first."""
    tokens = list_tokens(choice)
    if not reasoning:
        return tokens
    left, first = len(content), len(tokens)
    while left > 0 and first > 0:
        first -= 1
        left -= len(tokens[first].get("token") or "")
    return tokens[first:]


def find_json_object(text: str) -> str:
    """The first JSON object in `text`, without fences and words around it; `text` itself if there is none.

    Text before a syntax error is not parsed again, so that the time is linear in the text.
    """
    decoder, rest = json.JSONDecoder(), text
    start = rest.find("{")
    while start >= 0:
        if start > KEPT_CHARACTERS:
            rest, start = rest[start:], 0
        try:
            end = decoder.raw_decode(rest, start)[1]
        except json.JSONDecodeError as error:
            start = rest.find("{", max(start + 1, error.pos))
            continue
        except (ValueError, RecursionError):  # more digits or levels than Python reads
            break
        return rest[start:end]
    return text


def build_certainty(tokens: Sequence[dict[str, Any]]) -> TokenCertainty | None:
    """Certainty from the tokens of an answer; None unless every position has its most likely tokens."""
    if not tokens or not all(token.get("top_logprobs") for token in tokens):
        return None
    chosen = tuple(_clamp_logprob(token["logprob"]) for token in tokens)
    likeliest = ([_clamp_logprob(top["logprob"]) for top in token["top_logprobs"]] for token in tokens)
    return TokenCertainty(logprobs=chosen, entropies=tuple(map(_entropy, likeliest)))


def _entropy(logprobs: list[float]) -> float:
    rest = max(0.0, 1.0 - sum(map(math.exp, logprobs)))
    return -sum(math.exp(logprob) * logprob for logprob in logprobs) - (rest * math.log(rest) if rest else 0.0)


TAGGED_WORDS = (
    "First think step by step between <think> and </think>. After </think> write one JSON object and nothing else. "
    "Its JSON schema: {schema}"
)

AskTeacher = Callable[[TeacherQuestion], Awaitable[TeacherReply]]


def _needs_own_thinking(question: TeacherQuestion, config: TeacherConfig) -> bool:
    """Whether the question is not sent as it is: it has a schema, and asks for thinking."""
    return config.thinking != "native" and question.json_schema is not None and question.reasoning not in (None, "off")


async def think_and_answer(ask: AskTeacher, question: TeacherQuestion, config: TeacherConfig) -> TeacherReply:
    """The reply to a question with a schema, and the thinking before it; by a call of `ask`.

    Raises:
        CallFailed, ProviderError, RunStopped: as `ask`.
    """
    if not _needs_own_thinking(question, config):
        return await ask(question)
    reply = await ask(_build_tagged_question(question))
    split = split_thinking(reply.text)
    return reply.model_copy(
        update={
            "text": find_json_object(split.answer),
            "reasoning": reply.reasoning or split.reasoning,
            "finished": reply.finished and split.closed,
        }
    )


def _build_tagged_question(question: TeacherQuestion) -> TeacherQuestion:
    """Asks in words for the thoughts between tags and the object after them."""
    words = TAGGED_WORDS.format(schema=json.dumps(question.json_schema))
    return question.model_copy(update={"messages": _insert_instructions(question.messages, words), "json_schema": None})


MIN_LOGPROB = -50.0
"""Less likely than any sampled token; servers write impossible tokens in several ways."""


def read_reply_tokens(tokens: Sequence[Mapping[str, Any]], content: str, most: int) -> tuple[ReplyToken, ...]:
    """The tokens that write `content`, which may be a part of what they write: thinking, fences and end tokens are cut off.

    Args:
        tokens: as a server returned them, for the whole completion.
        content: the text of the reply.
        most: likeliest tokens to keep at each place.

    Returns:
        Tokens whose texts joined are `content`; one without likeliest tokens if those of the server do not write it.
    """
    texts = [_replace_surrogates(str(token.get("token") or "")) for token in tokens]
    begin = "".join(texts).rfind(content)
    if not tokens or begin < 0:
        return (ReplyToken(text=content, logprob=MIN_LOGPROB, likeliest={}),) if tokens else ()
    return tuple(_cut_tokens(tokens, texts, begin, begin + len(content), most))


def _cut_tokens(
    tokens: Sequence[Mapping[str, Any]], texts: Sequence[str], begin: int, end: int, most: int
) -> Iterator[ReplyToken]:
    """Those between two places of their joined texts; of a token that is cut, nothing is known."""
    at = 0
    for token, text in zip(tokens, texts, strict=True):
        inside = text[max(0, begin - at) : max(0, end - at)]
        at += len(text)
        if inside == text != "":
            yield _read_token(token, text, most)
        elif inside:
            yield ReplyToken(text=inside, logprob=MIN_LOGPROB, likeliest={})


def _read_token(token: Mapping[str, Any], text: str, most: int) -> ReplyToken:
    listed = [top for top in token.get("top_logprobs") or () if isinstance(top, Mapping)][:most]
    likeliest = {
        _replace_surrogates(str(top.get("token") or "")): _clamp_logprob(top.get("logprob")) for top in reversed(listed)
    }
    written = token.get("logprob")
    if not _is_number(written):
        written = likeliest.get(text)
    if written is None:  # without it, the others would seem to be all there is
        return ReplyToken(text=text, logprob=MIN_LOGPROB, likeliest={})
    return ReplyToken(text=text, logprob=_clamp_logprob(written), likeliest=likeliest)


def _clamp_logprob(logprob: float | None) -> float:
    return MIN_LOGPROB if logprob is None else min(0.0, max(MIN_LOGPROB, float(logprob)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _replace_surrogates(text: str) -> str:
    """With `?` for half a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
