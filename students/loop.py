"""The training loop: steps of an optimizer, measured, stopped, saved and resumed.

Knows no objective: what a step learns is a `Lesson`. Knows nothing of what a student begins as, or of how it is written.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_, get_total_norm

from core.errors import RunFailed
from core.student_config import StudentConfig
from students.begin import Progress
from students.checkpoint import Progressed, learning, put, resumed, save_checkpoint
from students.data import Encoded, Prepared, epoch_order, pad_id, stop_ids
from students.distillation import Lesson, gradient_norm
from students.evaluate import held_out_loss
from students.processes import add_up, first, place
from students.sampling import own_answers
from students.schedule import learning_rate
from students.signals import learned_count
from students.start import Start
from students.tracking import tracked

BETAS = (0.9, 0.95)
"""Of AdamW, as for Llama 2 (arXiv 2307.09288). Weight decay is off: it would shrink words that the data never shows."""
CLIP = 1.0
"""The largest gradient norm, as for Llama 2; a start with missing layers begins with far larger ones."""
TAUGHT = 1e-5
"""The least gradient norm that is no mere rounding."""
TEACHES = "teaches"
"""Among what the processes add up: how often a gradient was seen beside that of the text."""
PROOF_STEPS = 10
"""Steps in which a teacher must have taught something, beside the text: a student that is still its teacher learns nothing
of it in the first."""
PROGRESS_SECONDS = 5.0


def train(
    start: Start,
    data: Prepared,
    lesson: Lesson,
    config: StudentConfig,
    out: Path,
    *,
    seed: int,
    digest: str,
    progress: Progress,
) -> Progressed:
    """Train `start.model` in place, from its last checkpoint if there is one; with `patience`, to its best weights.

    Raises:
        RunFailed: if the loss stops being a number, or the teacher teaches nothing.
    """
    loop = Loop(start, data, lesson, config, seed, progress)
    done = loop.begun(out, digest)
    began = time.monotonic() - done.seconds
    loop.model.train()
    with tracked(config, out, digest, done.step) as track:
        while done.step < loop.steps and not stalled(done, config.patience):
            done.log.append(loop.learned(done.step))
            done = done._replace(step=done.step + 1)
            if done.step % loop.evaluate_steps == 0 or done.step == loop.steps:
                done = loop.evaluated(done)
            done = done._replace(seconds=time.monotonic() - began)
            loop.tell(done)
            track(done.log[-1])
            if first() and done.step % config.checkpoint_steps == 0 and done.step < loop.steps:
                save_checkpoint(out, digest, loop.learner, loop.optimizer, done)
    if config.patience:
        put(loop.learner, done.best)
    return done


def stalled(done: Progressed, patience: int | None) -> bool:
    """Whether the last step's evaluation is the last of `patience` that have not lowered the held-out loss."""
    if patience is None or not done.log or "held_out" not in done.log[-1]:
        return False
    return sum(line["step"] > done.best_step for line in done.evaluations) >= patience


class Loop:
    """A student in training: its parameters, their optimizer, and the conversations of each step."""

    def __init__(
        self, start: Start, data: Prepared, lesson: Lesson, config: StudentConfig, seed: int, progress: Progress
    ) -> None:
        self.model, self._tokenizer, self._pad = start.model, start.tokenizer, pad_id(start.tokenizer)
        self._data, self._lesson, self._config, self._seed = data, lesson, config, seed
        self.learner = torch.nn.ModuleDict({"student": self.model, "projections": lesson.projections})
        parameters = learning(self.learner).values()
        self.optimizer = torch.optim.AdamW(parameters, betas=BETAS, weight_decay=0.0, fused=True)
        self._per_step = config.batch_size * config.accumulate
        self._per_epoch = math.ceil(len(data.train) / self._per_step)
        self.steps = self._per_epoch * config.epochs
        self.evaluate_steps = config.evaluate_steps or self._per_epoch
        self._progress, self._told, self._read = progress, time.monotonic(), 0

    def begun(self, out: Path, digest: str) -> Progressed:
        """What the last checkpoint says, or what is measured before the first step."""
        if self._data.rejected:
            self._lesson.refer_to(self.model, [*self._data.train, *self._data.rejected], self._pad)
        done = resumed(out, digest, self.learner, self.optimizer, self._progress)
        if done is None:
            before = self._lesson.measured(self.model, self._data.held_out, self._pad)
            done = Progressed(step=0, loss_before=before.loss, kl_before=before.kl, seconds=0.0, log=[], best={})
        self._unproven = self._lesson.teaches
        self._deadline = min(done.step + (PROOF_STEPS if "sft" in self._config.weights else 1), self.steps)
        return done

    def learned(self, step: int) -> dict[str, float]:
        """Learn from the conversations of a step, counted from 0. Returns its line of the log."""
        given, rejected = self._examples(step)
        own = self._own_answers(given, step)
        encoded = own or given
        tokens = sum(map(learned_count, encoded))
        found: Counter[str] = Counter()
        weights = self._config.weights
        rank, processes = place()
        batches = list(_batches(encoded, rejected, self._config.batch_size))
        for some, worse in batches[rank::processes]:
            with self._lesson.precision(self.model):
                terms = self._lesson.terms(self.model, some, self._pad, rejected=worse, own=bool(own))
                part = terms.part_of(tokens, len(encoded))
                loss = part.total(weights)
            if self._unproven and "sft" in terms.values:
                found[TEACHES] += gradient_norm(terms.taught().total(weights), self.learner) >= TAUGHT
            torch.autograd.backward(loss)
            found.update({"loss": loss.item(), **{name: value.item() for name, value in part.values.items()}})
        if self._unproven and "sft" not in found:
            found[TEACHES] += get_total_norm(_gradients(self.learner)).item() >= TAUGHT
        names = ["loss", *(name for name in weights if not (own and name == "sft"))]
        told = self._told_by_all(found, names, step)
        rate = learning_rate(step, self.steps, self._config)
        self._move(rate)
        self._read += sum(len(one.ids) for one in (*encoded, *rejected))
        parts = {name: told[name] for name in names[1:] if len(weights) > 1}
        return {"step": step + 1, "loss": told["loss"], "lr": rate, "tokens": tokens, **parts}

    def evaluated(self, done: Progressed) -> Progressed:
        """With the held-out loss in the log's last line, and with these parameters if they are the best so far."""
        done.log[-1]["held_out"] = held_out_loss(self.model, self._data.held_out, self._pad)
        if self._config.patience and done.best_step == done.step:
            now = {name: parameter.detach().clone() for name, parameter in learning(self.learner).items()}
            return done._replace(best=now)
        return done

    def tell(self, done: Progressed) -> None:
        """Progress, every few seconds."""
        if (passed := time.monotonic() - self._told) > PROGRESS_SECONDS:
            line = done.log[-1]
            held_out = f", held-out loss {line['held_out']:.2f}" if "held_out" in line else ""
            pace = f"{self._read / passed:.0f} tokens/s"
            self._progress(f"student: step {done.step}/{self.steps}, loss {line['loss']:.2f}{held_out}, {pace}")
            self._told, self._read = time.monotonic(), 0

    def _examples(self, step: int) -> tuple[list[Encoded], list[Encoded]]:
        """The conversations of a step, and the worse ones that they are paired with, if any."""
        data, size = self._data, self._per_step
        epoch, place = divmod(step, self._per_epoch)
        order = epoch_order(len(data.train), self._seed, epoch)[place * size :][:size]
        return [data.train[index] for index in order], [data.rejected[index] for index in order if data.rejected]

    def _own_answers(self, given: list[Encoded], step: int) -> list[Encoded] | None:
        """Those of the student in the place of the given ones, in the share of the steps that the recipe says."""
        chance = random.Random(f"own answers {step} of {self._seed}")
        wanted = self._config.distillation
        if chance.random() >= wanted.lmbda:
            return None
        return own_answers(
            self.model,
            given,
            stop=stop_ids(self._tokenizer),
            pad=self._pad,
            max_new_tokens=wanted.max_new_tokens,
            temperature=wanted.temperature,
            seed=chance.getrandbits(63),
        )

    def _told_by_all(self, found: Counter[str], names: list[str], step: int) -> dict[str, float]:
        """The sums over all processes. Raises RunFailed if there is no going on."""
        names = [*names, TEACHES]
        sums = torch.tensor([found[name] for name in names], dtype=torch.float64, device=self.model.device)
        add_up([sums])
        told = dict(zip(names, sums.tolist(), strict=True))
        if not math.isfinite(told["loss"]):
            rate = self._config.learning_rate
            raise RunFailed(f"student: the loss is {told['loss']} at step {step + 1}; lower learning_rate = {rate}")
        self._unproven = self._unproven and not told[TEACHES]
        if self._unproven and step + 1 >= self._deadline:
            raise RunFailed(_nothing_taught(self._config))
        return told

    def _move(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        add_up(_gradients(self.learner))
        clip_grad_norm_(self.learner.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()


def _gradients(learner: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Of all that learns; zero where this process had nothing to learn from."""
    for parameter in learning(learner).values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        yield parameter.grad


def _batches(
    encoded: list[Encoded], rejected: list[Encoded], size: int
) -> Iterator[tuple[list[Encoded], list[Encoded]]]:
    for begin in range(0, len(encoded), size):
        yield encoded[begin : begin + size], rejected[begin : begin + size]


def _nothing_taught(config: StudentConfig) -> str:
    names = ", ".join(name for name in config.weights if name != "sft")
    return (
        f"student: {names} had no gradient, so the teacher taught nothing; the student may be its teacher already: choose "
        "fewer layers, another start or another teacher"
    )
