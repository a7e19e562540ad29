"""Associative recall beyond a window: which layer finds a value again whose key was read long before.

Multi-query associative recall (MQAR, arXiv 2312.04927): pairs of a key and a value, then filler, then the keys again in another
order; after each, the value is to be predicted. All models have two layers, the first with a window of attention that ends within
the filler, so what a query needs can only come from the second.

    python -m benchmarks.recall [--steps N] [ARM...]

Titans' memory (arXiv 2501.00663) is a perceptron whose weights are updated by the gradient of its own error while it reads. It is
an arm here and no architecture of students: no runtime of ours computes it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

from benchmarks.machine import describe_measurement
from plugins.forms.hybrid import initialize_memory

KEYS, FILLERS = 16, 15
WORDS = 2 * KEYS + FILLERS
"""Keys, values, then filler."""
PAIRS = (2, 4, 8)
"""In a row, in training and in the tests."""
FILLER_LENGTH, WINDOW = 20, 8
WIDTH, HEADS = 48, 2
LONGEST = 64
BATCH, RATE, WARM_UP = 32, 3e-3, 50
STEPS, TEST_ROWS = 2000, 512
ENOUGH = 0.995
"""Recall in two consecutive measurements that ends a training."""
MEASURE_STEPS = 48
CHUNK = 4
"""Tokens between two updates of Titans' memory."""
LARGEST_UPDATE = 0.1
"""The largest step of an update; with steps up to 2 the weights became infinite."""


class RecallRows(NamedTuple):
    """Tensors of shape (rows, tokens)."""

    words: torch.Tensor
    targets: torch.Tensor
    """The next word where it is the value of a repeated key, -100 elsewhere."""


class RecallScore(NamedTuple):
    recall: dict[int, float]
    """The share of values predicted, by the number of pairs."""
    steps: int
    parameters: int
    seconds: float


def draw_rows(rows: int, pairs: int, generator: torch.Generator) -> RecallRows:
    """Distinct keys, random values."""
    keys = torch.stack([torch.randperm(KEYS, generator=generator)[:pairs] for _ in range(rows)])
    values = torch.randint(KEYS, 2 * KEYS, (rows, pairs), generator=generator)
    filler = torch.randint(2 * KEYS, WORDS, (rows, FILLER_LENGTH), generator=generator)
    order = torch.stack([torch.randperm(pairs, generator=generator) for _ in range(rows)])
    asked, right = keys.gather(1, order), values.gather(1, order)

    def interleave(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return torch.stack([first, second], -1).flatten(1)

    words = torch.cat([interleave(keys, values), filler, interleave(asked, right)], 1)
    targets = torch.full_like(words, -100)
    targets[:, -2 * pairs :: 2] = right
    return RecallRows(words, targets)


class Attention(nn.Module):
    """Causal attention to the last `window` tokens, or to all with 0."""

    def __init__(self, window: int = 0) -> None:
        super().__init__()
        self.inputs, self.output = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self._window = window

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, tokens, _ = x.shape
        query, key, value = (part.view(rows, tokens, HEADS, -1).transpose(1, 2) for part in self.inputs(x).chunk(3, -1))
        distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
        mask = (distance >= 0) & (distance < (self._window or tokens))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        found: torch.Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return found


class ShortConvolution(nn.Module):
    """Adds to each token a weighted sum of the last four, so that a value can be stored with the key before it."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.weights(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        return x + mixed


def build_gated_delta(*, initialized: bool = True) -> nn.Module:
    """The memory of a hybrid student; else with the steps and the convolution that transformers gives a new one."""
    torch_config = Qwen3_5TextConfig(
        hidden_size=WIDTH, num_hidden_layers=1, layer_types=["linear_attention"], linear_num_key_heads=HEADS,
        linear_num_value_heads=HEADS, linear_key_head_dim=WIDTH // HEADS, linear_value_head_dim=WIDTH // HEADS,
    )  # fmt: skip
    memory = Qwen3_5GatedDeltaNet(torch_config, 0)
    if initialized:
        initialize_memory(memory)
    else:
        nn.init.normal_(memory.conv1d.weight, std=torch_config.initializer_range)
    return memory


class DeepMemory(nn.Module):
    """Titans' memory: a perceptron of two layers, updated chunk by chunk with momentum and decay (arXiv 2501.00663, section 3).

    Keys have a fixed length, steps are at most `largest`, and the gradient of a chunk has at most norm 1: without these bounds
    its weights become infinite. With `largest` 0 it only decays, and stores nothing.
    """

    def __init__(self, largest: float = LARGEST_UPDATE, hidden: int = WIDTH) -> None:
        super().__init__()
        self.convolution, self.inputs = ShortConvolution(), nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.step, self.keep, self.momentum = (nn.Linear(WIDTH, 1) for _ in range(3))
        self.norm, self.output = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.first = nn.Parameter(torch.randn(WIDTH, hidden) / WIDTH**0.5)
        self.second = nn.Parameter(torch.randn(hidden, WIDTH) / hidden**0.5 / 2)
        nn.init.constant_(self.step.bias, 0.0)
        nn.init.constant_(self.keep.bias, 5.0)
        nn.init.constant_(self.momentum.bias, -2.0)
        self._largest = largest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        query, key, value = self.inputs(x).chunk(3, -1)
        query, key, value = (
            functional.normalize(part, dim=-1) * WIDTH**0.5
            for part in (functional.silu(query), functional.silu(key), value)
        )
        first, second = self.first.expand(len(x), -1, -1), self.second.expand(len(x), -1, -1)
        speeds = [torch.zeros_like(first), torch.zeros_like(second)]
        read = []
        for begin in range(0, x.shape[1], CHUNK):
            part = slice(begin, begin + CHUNK)
            read.append(functional.silu(query[:, part] @ first) @ second)  # what earlier chunks stored
            gradients = self._compute_gradients(x[:, part], key[:, part], value[:, part], first, second)
            keep = torch.sigmoid(self.keep(x[:, part])).prod(1, keepdim=True)
            momentum = torch.sigmoid(self.momentum(x[:, part])).mean(1, keepdim=True)
            speeds = [momentum * speed - gradient for speed, gradient in zip(speeds, gradients, strict=True)]
            first, second = keep * first + speeds[0], keep * second + speeds[1]
        found: torch.Tensor = self.output(self.norm(torch.cat(read, 1)))
        return found

    def _compute_gradients(
        self, x: torch.Tensor, key: torch.Tensor, value: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> list[torch.Tensor]:
        """Of half the squared error of the values for both matrices, each token's weighted by its step."""
        before = key @ first
        gate = torch.sigmoid(before)
        active = before * gate
        error = (active @ second - value) * torch.sigmoid(self.step(x)) * self._largest
        inner = (error @ second.transpose(1, 2)) * (gate * (1 + before * (1 - gate)))
        gradients = [key.transpose(1, 2) @ inner, active.transpose(1, 2) @ error]
        return [one / one.flatten(1).norm(dim=1).clamp(min=1)[:, None, None] for one in gradients]


class Block(nn.Module):
    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer, self.norm, self.last_norm = mixer, nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.neurons = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mixer(self.norm(x))
        found: torch.Tensor = x + self.neurons(self.last_norm(x))
        return found


class RecallModel(nn.Module):
    """A window of attention, then `mixer`."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.words, self.convolution = nn.Embedding(WORDS, WIDTH), ShortConvolution()
        self.positions = nn.Parameter(torch.randn(LONGEST, WIDTH) * 0.02)
        self.blocks = nn.Sequential(Block(Attention(WINDOW)), Block(mixer))
        self.norm, self.output = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Logits of shape (rows, tokens, words)."""
        x = self.convolution(self.words(words) + self.positions[: words.shape[1]])
        found: torch.Tensor = self.output(self.norm(self.blocks(x)))
        return found


ARMS: Mapping[str, Callable[[], nn.Module]] = {
    "window only": lambda: Attention(WINDOW),
    "full attention": Attention,
    "gated delta, as in a hybrid student": build_gated_delta,
    "gated delta, initialized as by transformers": lambda: build_gated_delta(initialized=False),
    "Titans' memory": DeepMemory,
    "Titans' memory, learning rate 0": lambda: DeepMemory(0.0),
}
CONTROLS = {"gated delta, as in a hybrid student": "window only", "Titans' memory": "Titans' memory, learning rate 0"}
"""What an arm must be better than, or the benchmark shows nothing."""
LEAST_GAIN = 0.3


def train_arm(mixer: Callable[[], nn.Module], steps: int, *, seed: int = 0) -> RecallScore:
    """Train on rows of each of `PAIRS` in turn for `steps`, or until the longest are recalled, and test on new rows."""
    torch.manual_seed(seed)
    model = RecallModel(mixer())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed + 1)
    began, last, step = time.monotonic(), 0.0, 0
    for step in range(1, steps + 1):
        rows = draw_rows(BATCH, PAIRS[step % len(PAIRS) - 1], generator)
        logits = model(rows.words)
        loss = functional.cross_entropy(logits.flatten(0, 1), rows.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / WARM_UP) * max(0.1, 1 - step / steps)
        optimizer.step()
        if step % MEASURE_STEPS == 0:
            now = compute_recall(logits, rows)
            if min(now, last) > ENOUGH:
                break
            last = now
    recall = {pairs: measure_recall(model, pairs) for pairs in PAIRS}
    return RecallScore(recall, step, sum(one.numel() for one in model.parameters()), time.monotonic() - began)


@torch.no_grad()
def measure_recall(model: nn.Module, pairs: int) -> float:
    rows = draw_rows(TEST_ROWS, pairs, torch.Generator().manual_seed(99))
    return compute_recall(model(rows.words), rows)


def compute_recall(logits: torch.Tensor, rows: RecallRows) -> float:
    asked = rows.targets >= 0
    return float((logits.argmax(-1) == rows.targets)[asked].float().mean())


def table(steps: int = STEPS, names: Sequence[str] = ()) -> str:
    """Raises RuntimeError if a control reaches its arm."""
    scores = {name: train_arm(mixer, steps) for name, mixer in ARMS.items() if name in (names or ARMS)}
    for name, control in CONTROLS.items():
        if scores.keys() >= {name, control}:
            gain = min(scores[name].recall[pairs] - scores[control].recall[pairs] for pairs in PAIRS)
            if gain < LEAST_GAIN:
                raise RuntimeError(f"{name} recalls {gain:+.1%} more than {control}: the measurement shows nothing")
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.recall`",
        "",
        f"Two layers of width {WIDTH}; the first has attention to {WINDOW} tokens, and at least {FILLER_LENGTH} are between a "
        f"pair and its query. Trained on rows of each length in turn for at most {steps:,} steps, one seed; chance is "
        f"{1 / KEYS:.1%}. Controls: window only, learning rate 0.",
        "",
        f"| second layer | {' | '.join(f'{pairs} pairs' for pairs in PAIRS)} | steps | parameters | steps/s |",
        f"|---|{'---:|' * (len(PAIRS) + 3)}",
    ]
    for name, score in scores.items():
        shares = " | ".join(f"{score.recall[pairs]:.1%}" for pairs in PAIRS)
        pace = f"{score.steps / score.seconds:.1f}"
        lines.append(f"| {name} | {shares} | {score.steps:,} | {score.parameters:,} | {pace} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", help="names of arms; default: all")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write(f"{table(options.steps, options.arms)}\n")


if __name__ == "__main__":
    main()
