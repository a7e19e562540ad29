"""A GGUF file in llama.cpp at its highest precision: greedy tokens and log probabilities, compared with torch in tests."""

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import xllamacpp
from anyio.from_thread import start_blocking_portal

from teachers.local_llama import run_llama_server
from teachers.server_guard import StartedServer

PLAIN = 16
"""The id of a token that is a whole character in the tests' tokenizer; after part of a character the server returns no logits."""


class LlamaCpp:
    def __init__(self, server: StartedServer) -> None:
        self._url = server.url.removesuffix("/v1")
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {server.key}"}

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), self._headers)
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The next `count` tokens; an end of text is ignored."""
        body = {"prompt": list(prompt), "n_predict": count, "temperature": 0, "return_tokens": True, "ignore_eos": True}
        tokens: list[int] = self.post("/completion", body)["tokens"]
        return tokens

    def logprobs(self, prompt: Sequence[int], vocabulary: int) -> np.ndarray:
        """The log probabilities of every next token, by id. The bias only decides which token is then taken."""
        body = {
            "prompt": list(prompt), "n_predict": 1, "temperature": 0, "n_probs": vocabulary, "logit_bias": [[PLAIN, 1000]],
        }  # fmt: skip
        [position] = self.post("/completion", body)["completion_probabilities"]
        logprobs = {entry["id"]: entry["logprob"] for entry in position["top_logprobs"]}
        return np.array([logprobs[token] for token in range(vocabulary)])

    def tokenize(self, text: str) -> list[int]:
        tokens: list[int] = self.post("/tokenize", {"content": text, "parse_special": True})["tokens"]
        return tokens

    def rendered(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt that the chat template makes from `messages`."""
        prompt: str = self.post("/apply-template", {"messages": list(messages)})["prompt"]
        return prompt


@contextmanager
def llama_cpp(path: Path, more: Mapping[str, Any] = MappingProxyType({})) -> Iterator[LlamaCpp]:
    """With `more` of llama.cpp's parameters."""
    settings = {
        "model.path": str(path), "n_parallel": 1, "n_ctx": 1024, "warmup": False, "cache_ram_mib": 0,
        "cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1,
        "cache_type_k": xllamacpp.ggml_type.GGML_TYPE_F32.value,  # 16 bits would be 1e-3 nats
        "cache_type_v": xllamacpp.ggml_type.GGML_TYPE_F32.value,
        "flash_attn_type": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED.value,
        **more,
    }  # fmt: skip
    serving = run_llama_server(str(path), settings, print, patience=120)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving) as server:
        yield LlamaCpp(server.server)
