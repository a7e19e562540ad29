"""Reinforcement learning of a student: it answers requests in torch, a reward judges the answers, GRPO changes the weights.

Knows prompts as tokens and rewards as numbers; knows nothing of recipes or runs. Torch samples, not llama.cpp: of 85M
parameters, 64 answers took 19 s against 29 s and 7 s for a new GGUF file, and equal seeds give equal answers.
"""

import copy
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.errors import RunFailed
from core.sample import text_digest
from plugins.reinforcement.config import REQUESTS_PER_STEP
from plugins.reinforcement.policy_loss import PolicyLoss, compute_policy_loss, normalize_rewards
from students.chat_encoding import EncodedConversation, find_pad_id, find_stop_ids
from students.generation import sample_texts
from students.predictions import TokenBatch, build_batch, cast_weights, predict_tokens
from students.training.checkpoint import TrainingProgress, load_checkpoint, save_checkpoint
from students.training.loss_functions import cross_entropy
from students.training.training_loop import ADAM_BETAS, MAX_GRADIENT_NORM

GROUP = 8
"""Answers to each request."""
UPDATES = 2
"""Updates by the answers of a step, half of its requests each: sampling costs as much as learning. The second one learns from
answers of earlier weights, which is what the clipped ratio is for."""
CHECKPOINT_STEPS = 5


class SampledAnswer(NamedTuple):
    request: int
    """The index of its prompt."""
    text: str
    finished: bool
    """Whether it ended by itself."""


Reward = Callable[[Sequence[SampledAnswer]], Awaitable[Sequence[float]]]
"""The reward of each answer. All `GROUP` answers to a request are next to each other."""


class PolicySettings(NamedTuple):
    learning_rate: float
    max_new_tokens: int
    """Of an answer."""
    bf16: bool
    """The precision of sampling and learning; weights are in float32."""
    seed: int


class AnswerGroup(NamedTuple):
    """The answers to one request."""

    batch: TokenBatch
    advantages: torch.Tensor
    sampled: torch.Tensor
    start: torch.Tensor
    """Log-probabilities of the answers' tokens, by the weights that sampled them and by the start."""


class PolicyTraining:
    """A student in training. Its `model` is changed in place."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[tuple[int, ...]],
        reward: Reward, settings: PolicySettings,
    ) -> None:  # fmt: skip
        """The prompts are asked once, in order; those after the last full step are not."""
        self.model, self._tokenizer, self._prompts = model, tokenizer, prompts
        self._reward, self._settings = reward, settings
        self.steps = len(prompts) // REQUESTS_PER_STEP
        self._pad, self._stop = find_pad_id(tokenizer), find_stop_ids(tokenizer)
        precision = torch.bfloat16 if settings.bf16 else torch.float32
        self._start = cast_weights(copy.deepcopy(model), precision).requires_grad_(False)
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, betas=ADAM_BETAS, weight_decay=0.0, fused=True
        )

    async def run(
        self, out: Path, digest: str, progress: Callable[[str], None], check_stop: Callable[[], None]
    ) -> list[dict[str, float]]:
        """Train to the end, from the checkpoint of this `digest` next to `out` if there is one; the log, a line for each step.

        `check_stop` is called before each step and may raise. The checkpoint remains.

        Raises:
            RunFailed: if the loss is not finite.
        """
        none = TrainingProgress(step=0, loss_before=0.0, kl_before=None, seconds=0.0, log=[], best={})
        done = load_checkpoint(out, digest, self.model, self._optimizer, progress) or none
        began = time.monotonic() - done.seconds
        while done.step < self.steps:
            check_stop()
            done.log.append(await self.run_step(done.step))
            done = done._replace(step=done.step + 1, seconds=time.monotonic() - began)
            line = done.log[-1]
            progress(
                f"grpo: step {done.step}/{self.steps}, mean reward {line['reward']:.2f}, divergence from the start "
                f"{line['divergence']:.3f}, {done.seconds / done.step:.0f} s a step"
            )
            if done.step % CHECKPOINT_STEPS == 0 or done.step == self.steps:
                save_checkpoint(out, digest, self.model, self._optimizer, done)
        return done.log

    async def run_step(self, step: int) -> dict[str, float]:
        """Sample, judge and learn from the requests of a step, counted from 0. Returns its line of the log."""
        first = step * REQUESTS_PER_STEP
        asked = [place for place in range(first, first + REQUESTS_PER_STEP) for _ in range(GROUP)]
        with self._open_autocast():
            answers = sample_texts(
                self.model, [self._prompts[place] for place in asked], stop=self._stop, pad=self._pad,
                max_new_tokens=self._settings.max_new_tokens, temperature=1.0,
                seed=int(text_digest(f"grpo {self._settings.seed} {step}", length=15), 16),
            )  # fmt: skip
        texts = [
            SampledAnswer(place, self._tokenizer.decode(list(ids), skip_special_tokens=True), ids[-1] in self._stop)  # type: ignore[arg-type]
            for place, ids in zip(asked, answers, strict=True)
        ]
        rewards = torch.tensor(await self._reward(texts), dtype=torch.float32).view(REQUESTS_PER_STEP, GROUP)
        groups = self.build_groups([self._prompts[place] for place in asked], answers, rewards)
        found: list[PolicyLoss] = []
        for update in range(UPDATES):
            found += self._update(groups[update::UPDATES], step)
        return {
            "step": step + 1,
            "reward": float(rewards.mean()),
            "equal": float((rewards == rewards[:, :1]).all(1).float().mean()),
            "tokens": sum(map(len, answers)),
            "loss": fmean(float(one.loss) for one in found),
            "divergence": fmean(one.divergence for one in found),
            "clipped": fmean(one.clipped for one in found),
        }

    def build_groups(
        self, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]], rewards: torch.Tensor
    ) -> list[AnswerGroup]:
        """The answers to each request, with `rewards` of shape (requests, answers), before the weights change."""
        encoded = [
            EncodedConversation(prompt + answer, (False,) * len(prompt) + (True,) * len(answer))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        groups, size = [], rewards.shape[1]
        for place, advantages in enumerate(normalize_rewards(rewards)):
            batch = build_batch(encoded[place * size :][:size], self._pad)
            with torch.no_grad():
                sampled, start = (self.measure(model, batch)[0] for model in (self.model, self._start))
            groups.append(AnswerGroup(batch, advantages.to(self.model.device), sampled, start))
        return groups

    def _update(self, groups: Sequence[AnswerGroup], step: int) -> list[PolicyLoss]:
        """One step of the optimizer."""
        found = []
        self.model.train()
        for group in groups:
            loss = self.compute_group_loss(group)
            (loss.loss / len(groups)).backward()  # type: ignore[no-untyped-call]
            found.append(loss._replace(loss=loss.loss.detach()))
        if not all(one.loss.isfinite() for one in found):
            rate = self._settings.learning_rate
            raise RunFailed(f"grpo: the loss is not finite at step {step + 1}; lower learning_rate = {rate}")
        clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return found

    def compute_group_loss(self, group: AnswerGroup) -> PolicyLoss:
        now, rows = self.measure(self.model, group.batch)
        return compute_policy_loss(now, group.sampled, group.start, rows, group.advantages)

    def measure(self, model: PreTrainedModel, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The log-probability of each token of the answers, and its row, both of shape (tokens,)."""
        with self._open_autocast():
            found = predict_tokens(model, batch)
            return -cross_entropy(found.raw, found.targets), found.rows

    def _open_autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self._settings.bf16)
