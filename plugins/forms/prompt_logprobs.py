"""Captures the most likely tokens of each prompt position from an endpoint with vLLM's `prompt_logprobs`, without loading
the teacher.

Knows the fields of that request; knows nothing of retries, of captured signals on disk, or of training.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from core.config.students import DistillationConfig
from core.config.teachers import TeacherConfig
from core.errors import ProviderError, UsageError
from core.sample import json_digest
from students.captured_signals import SignalArrays, SignalIdentity, encode_likeliest
from students.chat_encoding import EncodedConversation
from teachers.base import CallFailed
from teachers.endpoint import LONGEST_BODY, EndpointTeacher, open_endpoint_teacher

CONCURRENT_REQUESTS = 8
BATCH_TEXTS = 16 * CONCURRENT_REQUESTS
"""Texts captured between two reports of progress."""
TIMEOUT_SECONDS = 300.0
OUTAGE_SECONDS = 15.0
"""A capture is not resumed, so a wrong address must fail soon."""
BYTES_PER_LOGPROB = 256
"""Upper bound of one token's log-probability as JSON: `{"12345":{"logprob":-0.5,"rank":1,"decoded_token":"…"}}`."""
REPLACEMENT_CHARACTER = "\ufffd"
"""In the text of a token that is only part of a character."""
SETTING = "student.distillation.teacher"

Result = TypeVar("Result")


class PromptLogprobTeacher:
    """The model that `config.teacher` names as `URL#MODEL`, or as `URL` where the endpoint serves only one."""

    def __init__(self, config: DistillationConfig) -> None:
        """Asks the endpoint for its models where none is named. Raises ProviderError or UsageError if that fails."""
        self._url, _, named = config.teacher.partition("#")
        self._url = self._url.rstrip("/")
        self._key = config.api_key_env
        self.model = named or self._find_only_model()

    @property
    def digest(self) -> str:
        """Of its address and name: an endpoint does not report a hash of its weights."""
        return json_digest(["endpoint", self._url, self.model])

    def _find_only_model(self) -> str:
        async def list_models() -> list[str]:
            async with open_endpoint_teacher(self._teacher_config("any"), "any") as teacher:
                answer = await _request_json(teacher, self._url, "/models")
            return [str(model["id"]) for model in answer.get("data", [])]

        served = _run_in_thread(list_models())
        if len(served) != 1:
            raise UsageError(
                f"{SETTING}: {self._url} serves {', '.join(served) or 'nothing'}; name one: {self._url}#MODEL"
            )
        return served[0]

    def _teacher_config(self, model: str) -> TeacherConfig:
        return TeacherConfig(
            model=f"openai/{model}",
            base_url=self._url,
            api_key_env=self._key,
            max_concurrent=CONCURRENT_REQUESTS,
            timeout_seconds=TIMEOUT_SECONDS,
            outage_seconds=OUTAGE_SECONDS,
        )

    def capture_texts(
        self, texts: Sequence[EncodedConversation], identity: SignalIdentity, tokenizer: PreTrainedTokenizerBase
    ) -> Iterator[SignalArrays]:
        """The most likely tokens at each learned token of each text, in the order of `texts`.

        Raises:
            ProviderError: if the endpoint does not answer, or does not return log-probabilities.
            UsageError: if the teacher's tokens differ from the student's.
        """

        async def capture(batch: Sequence[EncodedConversation]) -> list[SignalArrays]:
            async with open_endpoint_teacher(self._teacher_config(self.model), self.model) as teacher:
                return await asyncio.gather(*(self._capture_text(teacher, text, identity, tokenizer) for text in batch))

        for start in range(0, len(texts), BATCH_TEXTS):
            yield from _run_in_thread(capture(texts[start : start + BATCH_TEXTS]))

    async def _capture_text(
        self, teacher: EndpointTeacher, text: EncodedConversation, identity: SignalIdentity,
        tokenizer: PreTrainedTokenizerBase,
    ) -> SignalArrays:  # fmt: skip
        body = {
            "model": self.model, "prompt": list(text.ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": identity.kept,
        }  # fmt: skip
        max_bytes = LONGEST_BODY + len(text.ids) * (identity.kept + 1) * BYTES_PER_LOGPROB
        answer = await _request_json(teacher, self._url, "/completions", body, max_bytes)
        positions = answer["choices"][0].get("prompt_logprobs")
        if not positions or len(positions) != len(text.ids):
            raise ProviderError(
                f"{self.model} at {self._url}: returns no log-probabilities of prompt tokens (`prompt_logprobs`, as vLLM "
                "does); use a teacher in torch, or objective = 'sft' on its texts"
            )
        learned = [index for index, marked in enumerate(text.learned) if marked and index]
        for index in learned:
            # The text's own token, which is returned with the most likely ones, must decode to the same text on both sides.
            token = text.ids[index]
            theirs = positions[index].get(str(token), {}).get("decoded_token")
            ours = str(tokenizer.decode([token]))
            if theirs is None or REPLACEMENT_CHARACTER in ours + theirs:
                continue
            if theirs.strip() != ours.strip():
                raise UsageError(
                    f"{SETTING}: token {token} is {theirs!r} to {self.model} and {ours!r} to the student, so "
                    "their probabilities are of different tokens; use objective = 'sft' on the teacher's texts, or a start "
                    "that has the teacher's tokenizer"
                )
        return encode_likeliest(*_rank_tokens([positions[index] for index in learned], identity), identity.words)


def _run_in_thread(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run `coroutine` in an event loop of its own: in a notebook, the calling thread already runs one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


async def _request_json(
    teacher: EndpointTeacher, url: str, path: str, body: dict[str, Any] | None = None, max_bytes: int = LONGEST_BODY
) -> dict[str, Any]:
    try:
        return await teacher.request_json(path, body, max_bytes)
    except ProviderError as error:
        raise ProviderError(f"{SETTING}: {error}") from None
    except CallFailed as error:
        raise ProviderError(f"{SETTING}: {url}{path}: {error}") from None


def _rank_tokens(
    positions: Sequence[dict[str, dict[str, Any]]], identity: SignalIdentity
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and log-probabilities of the most likely tokens, each of shape (tokens, kept), the most likely first."""
    ids = np.zeros((len(positions), identity.kept), np.int64)
    log_probs = np.full((len(positions), identity.kept), -np.inf, np.float64)
    for row, logprobs in enumerate(positions):
        ranked = sorted(((value["logprob"], int(token)) for token, value in logprobs.items()), reverse=True)
        known = [(log_prob, token) for log_prob, token in ranked if token < identity.words][: identity.kept]
        if len(known) < identity.kept:
            raise ProviderError(
                f"an endpoint returns {len(known)} tokens of a position; {identity.kept} were requested"
            )
        log_probs[row], ids[row] = zip(*known, strict=True)
    return ids, log_probs
