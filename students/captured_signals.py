"""A teacher's probabilities captured once and stored on disk, for training without the teacher.

Knows the text, tokenizer and teacher of each capture, and refuses any other; knows nothing of losses or training.

Each position has either the likeliest tokens with the remaining probability as one outcome (`TopKSignal`), or the likeliest
and sampled other tokens (`SampledSignal`). Top-k without the rest would be biased towards overconfidence. Sampling is
unbiased: the expected gradient is that of all probabilities (as in Sparse Logit Sampling, arXiv 2503.16870).
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import PreTrainedModel

from core.config.students import DistillationConfig
from core.errors import RunFailed, UsageError
from core.storage.atomic_files import write_atomically
from students.chat_encoding import EncodedConversation
from students.predictions import TokenBatch, build_batch, predict_tokens

SIGNAL_FORMATS = {"top_k": "1", "sampled": "2"}
"""The format version of each kind's arrays."""
CAPTURE_BATCH = 8
PROGRESS_SECONDS = 5.0
MIN_LOG_PROBABILITY = torch.finfo(torch.float32).min
"""The logarithm of probability 0, so that it adds nothing to an entropy."""
MIN_REST_PROBABILITY = 1e-7
"""The least probability of all other tokens together, so that its logarithm is finite."""


class TopKSignal(NamedTuple):
    """The likeliest tokens of each position."""

    ids: torch.Tensor
    """Of shape (tokens, k), the likeliest first."""
    log_probs: torch.Tensor
    """Of shape (tokens, k + 1), the last for all other tokens together; (tokens, k) if there are no others."""


class SampledSignal(NamedTuple):
    """An estimate of the teacher's distribution by a few tokens, unbiased."""

    ids: torch.Tensor
    """Of shape (tokens, kept)."""
    shares: torch.Tensor
    """The probability mass that each represents, of shape (tokens, kept); they sum to 1."""
    entropy: torch.Tensor
    """Of the teacher's full distribution in nats, of shape (tokens,), which a KL divergence needs."""


class SignalIdentity(NamedTuple):
    """The source and parameters of captured signals: they are valid for these only."""

    tokenizer: str
    teacher: str
    words: int
    """The tokenizer's size."""
    kind: str
    kept: int
    """Tokens per position."""
    temperature: float
    seed: int
    """Of the sampling."""


def build_signal_identity(
    config: DistillationConfig, *, tokenizer: str, teacher: str, words: int, seed: int
) -> SignalIdentity:
    """The identity of the signals that this recipe captures; `tokenizer` and `teacher` are digests."""
    sampled = config.signals == "sampled"
    kept = min(config.draws if sampled else config.top_k, words)
    return SignalIdentity(tokenizer, teacher, words, config.signals, kept, config.temperature, seed if sampled else 0)


SignalArrays = dict[str, np.ndarray]
CaptureFunction = Callable[[Sequence[EncodedConversation]], Iterator[SignalArrays]]
"""From conversations to a teacher's signal for each of their learned tokens, in order."""


def encode_top_k(log_probs: torch.Tensor, kept: int) -> SignalArrays:
    """`ids` of shape (tokens, kept), and `log_probs` with the rest's as last column if there is a rest."""
    values, ids = log_probs.topk(kept)
    return encode_likeliest(ids.cpu().numpy(), values.double().cpu().numpy(), log_probs.shape[1])


def encode_likeliest(ids: np.ndarray, log_probs: np.ndarray, words: int) -> SignalArrays:
    """The same from the likeliest tokens only: both of shape (tokens, kept), the likeliest first."""
    if ids.shape[1] < words:
        rest = np.log(np.maximum(1 - np.exp(log_probs).sum(1, keepdims=True), MIN_REST_PROBABILITY))
        log_probs = np.concatenate([log_probs, rest], 1)
    return {"ids": _shrink_ids(ids, words), "log_probs": log_probs.astype(np.float16)}


class SampledTokens(NamedTuple):
    """A sparse unbiased estimate of each position's distribution."""

    ids: torch.Tensor
    """Of shape (tokens, kept), certain tokens first, likeliest first. Distinct, unless almost no probability is left."""
    shares: torch.Tensor
    """The probability mass that each represents, of shape (tokens, kept); they sum to 1."""
    certain: torch.Tensor
    """Whether the token is always kept, with its own probability, of shape (tokens, kept)."""
    entropy: torch.Tensor
    """Of the full distribution in nats, of shape (tokens,)."""


def sample_tokens(log_probs: torch.Tensor, kept: int, generator: torch.Generator) -> SampledTokens:
    """The unbiased estimate by `kept` tokens with the least variance (Barnes et al., arXiv 2402.14925), within rounding.

    A likely token is certain, with its own probability, while that exceeds an equal share of the remaining probability. The
    other places get that equal share each, drawn in proportion to probability by systematic sampling (Madow 1949).
    """
    probabilities = log_probs.exp()
    entropy = -torch.einsum("tw,tw->t", probabilities, log_probs.clamp_min(MIN_LOG_PROBABILITY))
    likeliest, ids = probabilities.topk(kept)
    place = torch.arange(kept, device=ids.device)
    before = likeliest.double().cumsum(1) - likeliest
    certain = (likeliest >= (1 - before) / (kept - place)).cumprod(1).bool()
    probabilities.scatter_(1, ids, likeliest.masked_fill(certain, 0.0))
    ends = probabilities.cumsum_(1)
    number = certain.sum(1, keepdim=True)
    share = ends[:, -1:] / (kept - number).clamp_min(1)
    begin = torch.rand(len(ids), 1, generator=generator).to(ids.device)
    points = (begin + (place - number).clamp_min(0)) * share
    others = torch.searchsorted(ends, points, right=True).clamp_max(log_probs.shape[1] - 1)
    return SampledTokens(torch.where(certain, ids, others), torch.where(certain, likeliest, share), certain, entropy)


def encode_sampled(log_probs: torch.Tensor, kept: int, generator: torch.Generator) -> SignalArrays:
    """Each position's `ids`, the number of `certain` ones, the non-redundant `shares`, and the `entropy`.

    Shares are concatenated by position: first the share of a drawn token, then those of all certain tokens but the first.
    """
    ids, shares, certain, entropy = sample_tokens(log_probs, kept, generator)
    # The likeliest token's share is the remainder: in half precision its error would exceed some whole shares.
    shares = torch.cat([shares[:, -1:].where(~certain[:, -1:], 0.0), shares[:, 1:]], 1)
    return {
        "ids": _shrink_ids(ids.cpu().numpy(), log_probs.shape[1]),
        "certain": certain.sum(1).cpu().numpy().astype(np.uint8),
        "shares": shares[certain].cpu().numpy().astype(np.float16),
        "entropy": entropy.cpu().numpy().astype(np.float16),
    }


def decode_shares(certain: np.ndarray, kept: int, stored: np.ndarray) -> np.ndarray:
    """All shares, of shape (tokens, kept), from the stored ones of `encode_sampled`."""
    is_certain = np.arange(kept) < certain[:, None]
    shares = np.zeros(is_certain.shape, np.float32)
    shares[is_certain] = stored
    drawn_share = np.where(certain > 0, shares[:, 0], np.float32(1 / kept))[:, None]
    shares = np.where(is_certain, shares, drawn_share)
    shares[:, 0] = 1 - shares[:, 1:].sum(1)
    return shares


def _shrink_ids(ids: np.ndarray, words: int) -> np.ndarray:
    return ids.astype(np.uint16 if words <= 2**16 else np.uint32)


def _token_digest(conversation: EncodedConversation) -> bytes:
    """The digest of a conversation's tokens and learned marks."""
    return hashlib.sha256(np.array(conversation.ids, np.int64).tobytes() + bytes(conversation.learned)).digest()


def capture_signals(
    capture: CaptureFunction,
    texts: Sequence[EncodedConversation],
    identity: SignalIdentity,
    path: Path,
    *,
    progress: Callable[[str], None],
) -> None:
    """Write a teacher's signals for every learned token of `texts`, whole or not at all; equal texts are captured once."""
    texts = list(dict.fromkeys(texts))
    parts: list[SignalArrays] = []
    began = reported = time.monotonic()
    for first in range(0, len(texts), CAPTURE_BATCH):
        parts += capture(texts[first : first + CAPTURE_BATCH])
        if time.monotonic() - reported > PROGRESS_SECONDS:
            reported = time.monotonic()
            progress(f"signals: {min(first + CAPTURE_BATCH, len(texts))} of {len(texts)} conversations")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    arrays["tokens"] = np.array([count_predicted_tokens(text) for text in texts], np.int32)
    arrays["texts"] = np.stack([np.frombuffer(_token_digest(text), np.uint8) for text in texts])
    with write_atomically(path) as partial:
        save_file(
            arrays, partial, {"format": SIGNAL_FORMATS[identity.kind], "identity": json.dumps(identity._asdict())}
        )
    tokens = int(arrays["tokens"].sum())
    progress(
        f"signals: {identity.kind} of {tokens} tokens in {path}, {path.stat().st_size / tokens:.1f} bytes per token, "
        f"captured in {time.monotonic() - began:.0f} s"
    )


def build_model_capture(teacher: PreTrainedModel, identity: SignalIdentity, pad: int) -> CaptureFunction:
    """The capture function of a teacher in torch, in bfloat16."""
    return lambda texts: _capture_from_model(teacher, texts, identity, pad)


@torch.no_grad()
def _capture_from_model(
    teacher: PreTrainedModel, texts: Sequence[EncodedConversation], identity: SignalIdentity, pad: int
) -> Iterator[SignalArrays]:
    with torch.autocast(teacher.device.type, dtype=torch.bfloat16):
        predictions = predict_tokens(teacher, build_batch(texts, pad))
    parts = torch.split(predictions.logits[:, : identity.words], [count_predicted_tokens(text) for text in texts])
    for text, logits in zip(texts, parts, strict=True):
        log_probs = (logits / identity.temperature).log_softmax(-1)
        if identity.kind == "sampled":
            digest = int.from_bytes(_token_digest(text)[:7], "big")
            yield encode_sampled(log_probs, identity.kept, torch.Generator().manual_seed(digest ^ identity.seed))
        else:
            yield encode_top_k(log_probs, identity.kept)


def count_predicted_tokens(conversation: EncodedConversation) -> int:
    """The learned tokens without the conversation's first, which nothing predicts."""
    return sum(conversation.learned[1:])


class CapturedSignals:
    """Signals on disk, indexed by their text."""

    def __init__(self, path: Path, identity: SignalIdentity) -> None:
        """Raises UsageError if the file is damaged, or has another identity."""
        self.path, self._identity = path, identity
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                self._arrays: SignalArrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except (OSError, SafetensorError) as error:
            raise UsageError(
                f"{path}: cannot be read as captured signals: {error}; remove it or name another file"
            ) from None

        recorded = json.loads(metadata.get("identity", "{}"))
        if metadata.get("format") != SIGNAL_FORMATS.get(recorded.get("kind"), ""):
            raise UsageError(
                f"{path}: has no captured signals in this version's format; remove it or name another file"
            )
        for name, value in identity._asdict().items():
            if recorded.get(name) != value:
                raise UsageError(
                    f"{path}: captured with another {name} ({recorded.get(name)}) than this training's ({value}); remove it "
                    "to capture again, or name another file (distillation.cache)"
                )

        tokens = self._arrays["tokens"]
        ends = np.cumsum(tokens)
        spans = zip(ends - tokens, ends, strict=True)
        self._spans = {
            row.tobytes(): slice(int(first), int(end))
            for row, (first, end) in zip(self._arrays["texts"], spans, strict=True)
        }
        if identity.kind == "sampled":
            self._starts = np.concatenate([[0], np.cumsum(self._arrays["certain"], dtype=np.int64)])

    def check(self, texts: Sequence[EncodedConversation]) -> None:
        """Raises UsageError if a text was not captured."""
        missing = sum(_token_digest(text) not in self._spans for text in texts)
        if missing:
            raise UsageError(
                f"{self.path}: {missing} of {len(texts)} conversations are not among the {len(self._spans)} that were "
                "captured; remove it to capture again, or name another file (distillation.cache)"
            )

    def get_signal(self, _batch: TokenBatch, encoded: Sequence[EncodedConversation]) -> TopKSignal | SampledSignal:
        """The captured signal of each learned token of these conversations, in order."""
        spans = [self._spans[_token_digest(text)] for text in encoded]
        if [span.stop - span.start for span in spans] != [count_predicted_tokens(text) for text in encoded]:
            raise RunFailed(f"{self.path}: is damaged, its number of tokens differs from its texts; remove it")

        def read(name: str) -> np.ndarray:
            return np.concatenate([self._arrays[name][span] for span in spans])

        ids = torch.from_numpy(read("ids").astype(np.int64))
        if self._identity.kind != "sampled":
            # In half precision the sum is not exactly 1.
            return TopKSignal(ids, torch.from_numpy(read("log_probs").astype(np.float32)).log_softmax(1))
        stored = [self._arrays["shares"][self._starts[span.start] : self._starts[span.stop]] for span in spans]
        shares = decode_shares(read("certain"), self._identity.kept, np.concatenate(stored))
        return SampledSignal(ids, torch.from_numpy(shares), torch.from_numpy(read("entropy").astype(np.float32)))
