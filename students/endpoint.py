"""A teacher behind an endpoint that tells how likely it finds the tokens of a prompt, as vLLM's completions do
(`prompt_logprobs`): its likeliest tokens at each position are captured without ever loading it.

Knows one question of a protocol; knows nothing of what is kept of the answers on disk, or of training.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
from transformers import PreTrainedTokenizerBase

from core.errors import ProviderError, UsageError
from core.run import redacted
from core.sample import digest_of
from core.student_config import DistillationConfig
from students.data import Encoded
from students.signals import Arrays, Identity, likeliest

AT_ONCE = 8
TRIES, FIRST_WAIT = 5, 0.5
"""A wait doubles from one try to the next."""
PASSING = {408, 409, 425, 429}
TIMEOUT_SECONDS = 300.0
UNREADABLE = "\ufffd"
"""Of a token that is a part of a character only."""


class EndpointTeacher:
    """The model that `config.teacher` names, as `URL`, where the endpoint serves one, or `URL#MODEL`."""

    def __init__(self, config: DistillationConfig) -> None:
        """Raises ProviderError or UsageError where it must be asked which model it serves, and does not say."""
        self._url, _, named = config.teacher.partition("#")
        self._url = self._url.rstrip("/")
        self._key = config.api_key_env
        self.model = named or self._only_model()

    @property
    def digest(self) -> str:
        """Of the model's name: an endpoint tells no hash of its weights."""
        return digest_of(["endpoint", self.model])

    def _only_model(self) -> str:
        served = [str(one["id"]) for one in self._asked("GET", "/models").get("data", [])]
        if len(served) != 1:
            raise UsageError(
                f"student.distillation.teacher: {self._url} serves {', '.join(served) or 'nothing'}; name one: "
                f"{self._url}#MODEL"
            )
        return served[0]

    def tell(self, texts: Sequence[Encoded], is_of: Identity, tokenizer: PreTrainedTokenizerBase) -> Iterator[Arrays]:
        """What it finds likely at each learned token of each text, in order.

        Raises:
            ProviderError: if it answers not at all, or tells no probabilities.
            UsageError: if it reads other tokens than the student.
        """
        with ThreadPoolExecutor(AT_ONCE) as several:
            yield from several.map(lambda one: self._of(one, is_of, tokenizer), texts)

    def _of(self, one: Encoded, is_of: Identity, tokenizer: PreTrainedTokenizerBase) -> Arrays:
        asked = {
            "model": self.model, "prompt": list(one.ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": is_of.kept,
        }  # fmt: skip
        answer = self._asked("POST", "/completions", asked)
        told = answer["choices"][0].get("prompt_logprobs")
        if not told or len(told) != len(one.ids):
            raise ProviderError(
                f"{self.model} at {self._url}: tells no probabilities of the tokens of a prompt (prompt_logprobs, as vLLM "
                "does); use a teacher in torch, or objective = 'sft' on its texts"
            )
        learned = [place for place, marked in enumerate(one.learned) if marked and place]
        for place in learned:
            self._check(one.ids[place], told[place], tokenizer)
        return likeliest(*_arrays([told[place] for place in learned], is_of), is_of.words)

    def _check(self, token: int, told: dict[str, dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> None:
        """That the text's own token, which is told beside the likeliest ones, reads the same on both sides."""
        theirs, ours = told.get(str(token), {}).get("decoded_token"), str(tokenizer.decode([token]))
        if theirs is None or UNREADABLE in ours + theirs:
            return
        if theirs.strip() != ours.strip():
            raise UsageError(
                f"student.distillation.teacher: token {token} is {theirs!r} to {self.model} and {ours!r} to the student, so "
                "their probabilities are of different tokens; use objective = 'sft' on the teacher's texts, or a start that "
                "has the teacher's tokenizer"
            )

    def _asked(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        fault, wait = "", FIRST_WAIT
        key = os.environ.get(self._key)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        for _ in range(TRIES):
            try:
                response = httpx.request(method, self._url + path, json=body, headers=headers, timeout=TIMEOUT_SECONDS)
            except httpx.HTTPError as error:
                fault = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    found: dict[str, Any] = response.json()
                    return found
                fault = f"status {response.status_code}: {' '.join(response.text.split())[:300]}"
                if response.status_code < 500 and response.status_code not in PASSING:
                    break
            time.sleep(wait)
            wait *= 2
        raise ProviderError(f"student.distillation.teacher: {self._url}{path}: {redacted(fault)}")


def _arrays(told: Sequence[dict[str, dict[str, Any]]], is_of: Identity) -> tuple[np.ndarray, np.ndarray]:
    """Ids and log-probabilities of the likeliest tokens, each of shape (tokens, kept), the likeliest first."""
    ids = np.zeros((len(told), is_of.kept), np.int64)
    log_probs = np.full((len(told), is_of.kept), -np.inf, np.float64)
    for row, one in enumerate(told):
        ranked = sorted(((value["logprob"], int(token)) for token, value in one.items()), reverse=True)
        known = [(log_prob, token) for log_prob, token in ranked if token < is_of.words][: is_of.kept]
        if len(known) < is_of.kept:
            raise ProviderError(
                f"an endpoint tells {len(known)} tokens of a position where {is_of.kept} were asked for"
            )
        log_probs[row], ids[row] = zip(*known, strict=True)
    return ids, log_probs
