"""A teacher's probabilities captured once and kept on disk, for students that never meet the teacher.

Knows what was kept of which text, tokenizer and teacher, and refuses any other; knows nothing of losses or of training.

Of each position either the likeliest tokens and what is left as one (`TopK`), or tokens drawn from the teacher's
distribution (`Sampled`). Top-k without the rest would be biased: it teaches a student to be too sure. Draws are not, and
their gradient is that of all probabilities in expectation (Sparse Logit Sampling, arXiv 2503.16870).
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import PreTrainedModel

from core.errors import RunFailed, UsageError
from core.recipe import DistillationConfig
from core.store import written_whole
from students.data import Batch, Encoded, batched
from students.evaluate import predicted

FORMAT = "1"
CAPTURE_BATCH = 8
PROGRESS_SECONDS = 5.0
SMALLEST = 1e-7
"""The least probability that is kept for all other tokens together, so that its logarithm is a number."""


class TopK(NamedTuple):
    """The likeliest tokens of each position."""

    ids: torch.Tensor
    """Of shape (tokens, k), the likeliest first."""
    log_probs: torch.Tensor
    """Of shape (tokens, k + 1), that of all other tokens together last; (tokens, k) where there are no others."""


class Sampled(NamedTuple):
    """Tokens drawn from the teacher's distribution, with replacement."""

    ids: torch.Tensor
    """The different ones of each position, of shape (tokens, most); filled up with 0."""
    shares: torch.Tensor
    """How often each was drawn, as a share of the draws, of shape (tokens, most); what fills up has 0."""
    entropy: torch.Tensor
    """Of the teacher's whole distribution in nats, of shape (tokens,), so that a KL divergence can be told."""


class Identity(NamedTuple):
    """What signals were captured of and how: they are of use for nothing else."""

    tokenizer: str
    teacher: str
    words: int
    """Of the tokenizer."""
    kind: str
    kept: int
    """Tokens, or draws, of each position."""
    temperature: float
    seed: int
    """Of the draws."""


def identity(config: DistillationConfig, *, tokenizer: str, teacher: str, words: int, seed: int) -> Identity:
    """Of signals that this recipe captures; `tokenizer` and `teacher` are digests."""
    sampled = config.signals == "sampled"
    kept = config.draws if sampled else min(config.top_k, words)
    return Identity(tokenizer, teacher, words, config.signals, kept, config.temperature, seed if sampled else 0)


Arrays = dict[str, np.ndarray]
Tell = Callable[[Sequence[Encoded]], Iterator[Arrays]]
"""What a teacher says of some conversations, one after the other, of each learned token."""


def top_k(log_probs: torch.Tensor, kept: int) -> Arrays:
    """`ids` of shape (tokens, kept), and `log_probs` with the rest's as last column where there is a rest."""
    values, ids = log_probs.topk(kept)
    return likeliest(ids.numpy(), values.double().numpy(), log_probs.shape[1])


def likeliest(ids: np.ndarray, log_probs: np.ndarray, words: int) -> Arrays:
    """The same of the likeliest tokens alone: both of shape (tokens, kept), the likeliest first."""
    if ids.shape[1] < words:
        rest = np.log(np.maximum(1 - np.exp(log_probs).sum(1, keepdims=True), SMALLEST))
        log_probs = np.concatenate([log_probs, rest], 1)
    return {"ids": _small(ids, words), "log_probs": log_probs.astype(np.float16)}


def sampled(log_probs: torch.Tensor, draws: int, generator: torch.Generator) -> Arrays:
    """The different `ids` drawn of each position with their `counts`, one position after the other, and how many of them each
    position has (`sizes`).
    """
    probabilities = log_probs.exp()
    ends = probabilities.cumsum(1, dtype=torch.float64)
    points = torch.rand(len(ends), draws, dtype=torch.float64, generator=generator) * ends[:, -1:]
    drawn = torch.searchsorted(ends, points, right=True).clamp_max(log_probs.shape[1] - 1).sort(1).values
    new = torch.ones_like(drawn, dtype=torch.bool)
    new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    starts = new.flatten().nonzero()[:, 0]
    counts = torch.diff(starts, append=torch.tensor([drawn.numel()]))
    entropy = -(probabilities * log_probs).sum(1)
    return {
        "ids": _small(drawn[new].numpy(), log_probs.shape[1]),
        "counts": counts.numpy().astype(np.uint8),
        "sizes": new.sum(1).numpy().astype(np.uint8),
        "entropy": entropy.numpy().astype(np.float16),
    }


def _small(ids: np.ndarray, words: int) -> np.ndarray:
    return ids.astype(np.uint16 if words <= 2**16 else np.uint32)


def text_digest(one: Encoded) -> bytes:
    """Of a conversation's tokens, and of which of them are learned."""
    return hashlib.sha256(np.array(one.ids, np.int64).tobytes() + bytes(one.learned)).digest()


def capture(
    tell: Tell, texts: Sequence[Encoded], is_of: Identity, path: Path, *, progress: Callable[[str], None]
) -> None:
    """Write what a teacher says of every learned token of `texts`, whole or not at all; equal texts are captured once."""
    texts = list(dict.fromkeys(texts))
    parts: list[Arrays] = []
    began = told = time.monotonic()
    for first in range(0, len(texts), CAPTURE_BATCH):
        parts += tell(texts[first : first + CAPTURE_BATCH])
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            progress(f"signals: {min(first + CAPTURE_BATCH, len(texts))} of {len(texts)} conversations")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    arrays["tokens"] = np.array([learned_count(one) for one in texts], np.int32)
    arrays["texts"] = np.stack([np.frombuffer(text_digest(one), np.uint8) for one in texts])
    with written_whole(path) as partial:
        save_file(arrays, partial, {"format": FORMAT, "identity": json.dumps(is_of._asdict())})
    tokens = int(arrays["tokens"].sum())
    progress(
        f"signals: {is_of.kind} of {tokens} tokens in {path}, {path.stat().st_size / tokens:.1f} bytes a token, "
        f"captured in {time.monotonic() - began:.0f} s"
    )


def told_by(teacher: PreTrainedModel, is_of: Identity, pad: int) -> Tell:
    """A teacher in torch, in bfloat16."""
    return lambda texts: _told(teacher, texts, is_of, pad)


@torch.no_grad()
def _told(teacher: PreTrainedModel, texts: Sequence[Encoded], is_of: Identity, pad: int) -> Iterator[Arrays]:
    with torch.autocast(teacher.device.type, dtype=torch.bfloat16):
        said = predicted(teacher, batched(texts, pad))
    log_probs = (said.logits[:, : is_of.words] / is_of.temperature).log_softmax(-1)
    for row, one in enumerate(texts):
        own = log_probs[said.rows == row].cpu()
        if is_of.kind == "sampled":
            digest = int.from_bytes(text_digest(one)[:7], "big")
            yield sampled(own, is_of.kept, torch.Generator().manual_seed(digest ^ is_of.seed))
        else:
            yield top_k(own, is_of.kept)


def learned_count(one: Encoded) -> int:
    """How many tokens of it are predicted: the first of all has nothing before it."""
    return sum(one.learned[1:])


class Captured:
    """Signals on disk, found by the text that they are of."""

    def __init__(self, path: Path, is_of: Identity) -> None:
        """Raises UsageError if the file is damaged, or of anything else than `is_of`."""
        self.path, self._is_of = path, is_of
        self._arrays, metadata = _read(path)
        there = json.loads(metadata.get("identity", "{}"))
        for name, value in is_of._asdict().items():
            if there.get(name) != value:
                raise UsageError(
                    f"{path}: captured with another {name} ({there.get(name)}) than this training's ({value}); remove it to "
                    "capture anew, or name another file (distillation.cache)"
                )
        tokens = self._arrays["tokens"]
        ends = np.cumsum(tokens)
        spans = zip(ends - tokens, ends, strict=True)
        self._spans = {
            row.tobytes(): slice(int(first), int(end))
            for row, (first, end) in zip(self._arrays["texts"], spans, strict=True)
        }
        if is_of.kind == "sampled":
            self._starts = np.concatenate([[0], np.cumsum(self._arrays["sizes"], dtype=np.int64)])

    def check(self, texts: Sequence[Encoded]) -> None:
        """Raises UsageError if any of them was not captured."""
        missing = sum(text_digest(one) not in self._spans for one in texts)
        if missing:
            raise UsageError(
                f"{self.path}: {missing} of {len(texts)} conversations are not among the {len(self._spans)} that were "
                "captured; remove it to capture anew, or name another file (distillation.cache)"
            )

    def signal(self, _batch: Batch, encoded: Sequence[Encoded]) -> TopK | Sampled:
        """What was captured of each learned token of these conversations, one after the other."""
        spans = [self._spans[text_digest(one)] for one in encoded]
        if [span.stop - span.start for span in spans] != [learned_count(one) for one in encoded]:
            raise RunFailed(f"{self.path}: is damaged, it has more or fewer tokens than its texts; remove it")
        return self._sampled(spans) if self._is_of.kind == "sampled" else self._top_k(spans)

    def _top_k(self, spans: Sequence[slice]) -> TopK:
        ids, log_probs = (np.concatenate([self._arrays[name][span] for span in spans]) for name in ("ids", "log_probs"))
        # Half precision leaves a sum that is not quite 1.
        return TopK(
            torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(log_probs.astype(np.float32)).log_softmax(1)
        )

    def _sampled(self, spans: Sequence[slice]) -> Sampled:
        sizes, entropy = (np.concatenate([self._arrays[name][span] for span in spans]) for name in ("sizes", "entropy"))
        flat = [slice(self._starts[span.start], self._starts[span.stop]) for span in spans]
        ids, counts = (np.concatenate([self._arrays[name][part] for part in flat]) for name in ("ids", "counts"))
        there = np.arange(sizes.max()) < sizes[:, None]
        padded, shares = np.zeros(there.shape, np.int64), np.zeros(there.shape, np.float32)
        padded[there], shares[there] = ids, counts / np.float32(self._is_of.kept)
        return Sampled(*map(torch.from_numpy, (padded, shares, entropy.astype(np.float32))))


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{path}: cannot be read as captured signals: {error}; remove it or name another file"
        ) from None
    if metadata.get("format") != FORMAT:
        raise UsageError(f"{path}: holds no captured signals of format {FORMAT}; remove it or name another file")
    return arrays, metadata
