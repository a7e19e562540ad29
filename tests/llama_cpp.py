"""A GGUF file in llama.cpp as precisely as it computes, and what it says of tokens: the counterpart of torch in tests."""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp

PLAIN = 16
"""The id of a token that is a whole character in the tests' tokenizer: with an unfinished one the server tells no logits."""


class LlamaCpp:
    def __init__(self, url: str) -> None:
        self._url = url

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The next `count` tokens; an end of text is passed over."""
        asked = {
            "prompt": list(prompt),
            "n_predict": count,
            "temperature": 0,
            "return_tokens": True,
            "ignore_eos": True,
        }
        tokens: list[int] = self.post("/completion", asked)["tokens"]
        return tokens

    def logprobs(self, prompt: Sequence[int], vocabulary: int) -> np.ndarray:
        """Of every next token, by id. The bias only decides which is then taken."""
        asked = {
            "prompt": list(prompt), "n_predict": 1, "temperature": 0, "n_probs": vocabulary, "logit_bias": [[PLAIN, 1000]],
        }  # fmt: skip
        [position] = self.post("/completion", asked)["completion_probabilities"]
        told = {one["id"]: one["logprob"] for one in position["top_logprobs"]}
        return np.array([told[token] for token in range(vocabulary)])

    def tokenize(self, text: str) -> list[int]:
        tokens: list[int] = self.post("/tokenize", {"content": text, "parse_special": True})["tokens"]
        return tokens

    def rendered(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt that its chat template makes of `messages`."""
        prompt: str = self.post("/apply-template", {"messages": list(messages)})["prompt"]
        return prompt


@contextmanager
def llama_cpp(path: Path) -> Iterator[LlamaCpp]:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel, params.n_ctx = 1, 1024
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # 16 bits would be 1e-3 nats
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.verbosity, params.warmup, params.cache_ram_mib = -1, False, 0
    server = xllamacpp.Server(params)
    try:
        yield LlamaCpp(server.listening_address)
    finally:
        del server
