"""A teacher's probabilities captured once and kept on disk, for students that never meet the teacher.

Knows what was kept of which text, tokenizer and teacher, and refuses any other; knows nothing of losses or of training.

Of each position either the likeliest tokens and what is left as one (`TopK`), or the likeliest and others that are drawn to
stand for what is left (`Sampled`). Top-k without the rest would be biased: it teaches a student to be too sure. Draws are not,
and their gradient is that of all probabilities in expectation (as in Sparse Logit Sampling, arXiv 2503.16870).
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
from core.store import written_whole
from core.student_config import DistillationConfig
from students.data import Batch, Encoded, batched
from students.evaluate import predicted

FORMATS = {"top_k": "1", "sampled": "2"}
"""Of the arrays of each kind."""
CAPTURE_BATCH = 8
PROGRESS_SECONDS = 5.0
LEAST_LOG = torch.finfo(torch.float32).min
"""For the logarithm of what is impossible, so that it adds nothing to an entropy."""
SMALLEST = 1e-7
"""The least probability that is kept for all other tokens together, so that its logarithm is a number."""


class TopK(NamedTuple):
    """The likeliest tokens of each position."""

    ids: torch.Tensor
    """Of shape (tokens, k), the likeliest first."""
    log_probs: torch.Tensor
    """Of shape (tokens, k + 1), that of all other tokens together last; (tokens, k) where there are no others."""


class Sampled(NamedTuple):
    """An estimate of the teacher's distribution by a few tokens, unbiased."""

    ids: torch.Tensor
    """Of shape (tokens, kept)."""
    shares: torch.Tensor
    """What each stands for, of shape (tokens, kept); they sum to 1."""
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
    """Tokens of each position."""
    temperature: float
    seed: int
    """Of the draws."""


def identity(config: DistillationConfig, *, tokenizer: str, teacher: str, words: int, seed: int) -> Identity:
    """Of signals that this recipe captures; `tokenizer` and `teacher` are digests."""
    sampled = config.signals == "sampled"
    kept = min(config.draws if sampled else config.top_k, words)
    return Identity(tokenizer, teacher, words, config.signals, kept, config.temperature, seed if sampled else 0)


Arrays = dict[str, np.ndarray]
Tell = Callable[[Sequence[Encoded]], Iterator[Arrays]]
"""What a teacher says of some conversations, one after the other, of each learned token."""


def top_k(log_probs: torch.Tensor, kept: int) -> Arrays:
    """`ids` of shape (tokens, kept), and `log_probs` with the rest's as last column where there is a rest."""
    values, ids = log_probs.topk(kept)
    return likeliest(ids.cpu().numpy(), values.double().cpu().numpy(), log_probs.shape[1])


def likeliest(ids: np.ndarray, log_probs: np.ndarray, words: int) -> Arrays:
    """The same of the likeliest tokens alone: both of shape (tokens, kept), the likeliest first."""
    if ids.shape[1] < words:
        rest = np.log(np.maximum(1 - np.exp(log_probs).sum(1, keepdims=True), SMALLEST))
        log_probs = np.concatenate([log_probs, rest], 1)
    return {"ids": _small(ids, words), "log_probs": log_probs.astype(np.float16)}


class Drawn(NamedTuple):
    """A sparse estimate of each position's distribution, unbiased."""

    ids: torch.Tensor
    """Of shape (tokens, kept), those that are certain to be kept first, the likeliest first. All different, but where next to
    nothing is left to draw from."""
    shares: torch.Tensor
    """What each stands for, of shape (tokens, kept); they sum to 1."""
    certain: torch.Tensor
    """Whether it is kept whatever is drawn, with its own probability, of shape (tokens, kept)."""
    entropy: torch.Tensor
    """Of the whole distribution in nats, of shape (tokens,)."""


def drawn(log_probs: torch.Tensor, kept: int, generator: torch.Generator) -> Drawn:
    """The unbiased estimate of `kept` tokens with the least variance: the likeliest with their own probabilities, as long as
    that is more than an equal share of what the rest has left; of the rest as many as there is room, each with that equal
    share and drawn with a chance in proportion to its probability (Barnes et al., arXiv 2402.14925), systematically
    (Madow 1949). To rounding in float32.
    """
    probabilities = log_probs.exp()
    entropy = -torch.einsum("tw,tw->t", probabilities, log_probs.clamp_min(LEAST_LOG))
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
    return Drawn(torch.where(certain, ids, others), torch.where(certain, likeliest, share), certain, entropy)


def sampled(log_probs: torch.Tensor, kept: int, generator: torch.Generator) -> Arrays:
    """The `ids` that are kept of each position, how many of them are `certain`, the `shares` that do not follow from others, and
    the `entropy` of all. Shares are, one position after the other: of each that is drawn, then of all certain ones but the
    first.
    """
    ids, shares, certain, entropy = drawn(log_probs, kept, generator)
    # The likeliest one's is what the others leave: in half precision its error would be larger than all of some others.
    shares = torch.cat([shares[:, -1:].where(~certain[:, -1:], 0.0), shares[:, 1:]], 1)
    return {
        "ids": _small(ids.cpu().numpy(), log_probs.shape[1]),
        "certain": certain.sum(1).cpu().numpy().astype(np.uint8),
        "shares": shares[certain].cpu().numpy().astype(np.float16),
        "entropy": entropy.cpu().numpy().astype(np.float16),
    }


def shares_of(certain: np.ndarray, kept: int, stored: np.ndarray) -> np.ndarray:
    """All of shape (tokens, kept), from what `sampled` stores."""
    there = np.arange(kept) < certain[:, None]
    shares = np.zeros(there.shape, np.float32)
    shares[there] = stored
    each = np.where(certain > 0, shares[:, 0], np.float32(1 / kept))[:, None]
    shares = np.where(there, shares, each)
    shares[:, 0] = 1 - shares[:, 1:].sum(1)
    return shares


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
        save_file(arrays, partial, {"format": FORMATS[is_of.kind], "identity": json.dumps(is_of._asdict())})
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
    parts = torch.split(said.logits[:, : is_of.words], [learned_count(one) for one in texts])
    for one, logits in zip(texts, parts, strict=True):
        log_probs = (logits / is_of.temperature).log_softmax(-1)
        if is_of.kind == "sampled":
            digest = int.from_bytes(text_digest(one)[:7], "big")
            yield sampled(log_probs, is_of.kept, torch.Generator().manual_seed(digest ^ is_of.seed))
        else:
            yield top_k(log_probs, is_of.kept)


def learned_count(one: Encoded) -> int:
    """How many tokens of it are predicted: the first of all has nothing before it."""
    return sum(one.learned[1:])


class Captured:
    """Signals on disk, found by the text that they are of."""

    def __init__(self, path: Path, is_of: Identity) -> None:
        """Raises UsageError if the file is damaged, or of anything else than `is_of`."""
        self.path, self._is_of = path, is_of
        self._arrays, there = _read(path)
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
            self._starts = np.concatenate([[0], np.cumsum(self._arrays["certain"], dtype=np.int64)])

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
        ids, certain, entropy = (
            np.concatenate([self._arrays[name][span] for span in spans]) for name in ("ids", "certain", "entropy")
        )
        stored = [self._arrays["shares"][self._starts[span.start] : self._starts[span.stop]] for span in spans]
        shares = shares_of(certain, self._is_of.kept, np.concatenate(stored))
        return Sampled(*map(torch.from_numpy, (ids.astype(np.int64), shares, entropy.astype(np.float32))))


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{path}: cannot be read as captured signals: {error}; remove it or name another file"
        ) from None
    there = json.loads(metadata.get("identity", "{}"))
    if metadata.get("format") != FORMATS.get(there.get("kind"), ""):
        raise UsageError(
            f"{path}: holds no captured signals as this version writes them; remove it or name another file"
        )
    return arrays, there
