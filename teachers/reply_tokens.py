"""The tokens of a reply with the likeliest ones at each place, from the `logprobs` of a chat completion."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.sample import ReplyToken

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
    texts = [replace_surrogates(str(token.get("token") or "")) for token in tokens]
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
        replace_surrogates(str(top.get("token") or "")): clamp_logprob(top.get("logprob")) for top in reversed(listed)
    }
    written = token.get("logprob")
    if not _is_number(written):
        written = likeliest.get(text)
    if written is None:  # without it, the others would seem to be all there is
        return ReplyToken(text=text, logprob=MIN_LOGPROB, likeliest={})
    return ReplyToken(text=text, logprob=clamp_logprob(written), likeliest=likeliest)


def clamp_logprob(logprob: float | None) -> float:
    return MIN_LOGPROB if logprob is None else min(0.0, max(MIN_LOGPROB, float(logprob)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def replace_surrogates(text: str) -> str:
    """With `?` for half a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
