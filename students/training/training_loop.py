"""The training loop: optimizer steps, evaluation, early stopping, checkpoints and resumption.

The loss of a step is a `TrainingObjective`. Knows nothing of a student's start or its files.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.utils import clip_grad_norm_, get_total_norm

from core.config.students import StudentConfig
from core.errors import RunFailed, UsageError
from core.installation import format_install_command
from students.captured_signals import count_predicted_tokens
from students.chat_encoding import EncodedConversation, find_stop_ids
from students.distributed import all_reduce_sum, is_main_process, rank_and_world_size
from students.generation import generate_own_answers
from students.predictions import compute_held_out_loss
from students.training.checkpoint import (
    TrainingProgress,
    list_trainable_parameters,
    load_checkpoint,
    save_checkpoint,
    set_parameters,
)
from students.training.steps import Training
from students.training.training_objective import REPLAY, TrainingObjective, gradient_norm
from students.training_data import PreferenceAnswer, shuffle_epoch

Row = TypeVar("Row")

ADAM_BETAS = (0.9, 0.95)
"""Of AdamW, as for Llama 2 (arXiv 2307.09288). Weight decay is off: it would shrink embeddings of words not in the data."""
MAX_GRADIENT_NORM = 1.0
"""The clipping norm, as for Llama 2; a start with missing layers has far larger gradients at first."""
MIN_TEACHER_GRADIENT = 1e-5
"""The least gradient norm above rounding errors."""
TEACHER_GRADIENTS = "teaches"
"""The key, among sums over processes, of the number of batches with a gradient besides that of the text."""
PROOF_STEPS = 10
"""Steps within which the teacher's gradient must be above rounding, besides that of `sft`: in the first steps it is zero
for a student that still equals its teacher."""
PROGRESS_SECONDS = 5.0
REPLAY_TOKENS = 512
"""Learned tokens of replay conversations in one pass: a divergence over 49,152 words needs a megabyte for each."""


def run_training_loop(training: Training, objective: TrainingObjective) -> TrainingProgress:
    """Train the student in place, from its last checkpoint if there is one; with `patience`, to its best weights.

    Raises:
        RunFailed: if the loss is not finite, or the teacher's gradient is zero.
    """
    config, out, digest = training.config, training.out, training.digest
    loop = _TrainingLoop(training, objective)
    done = loop.restore_or_measure(out, digest)
    for step in training.steps:
        step.resume(training)
    began = time.monotonic() - done.seconds
    loop.model.train()
    with _track_training(config, out, digest, done.step) as track:
        while done.step < loop.steps and not _has_stalled(done, config.patience):
            done.log.append(loop.run_step(done.step))
            done = done._replace(step=done.step + 1)
            if done.step % loop.evaluate_steps == 0 or done.step == loop.steps:
                done = loop.evaluate(done)
            done = done._replace(seconds=time.monotonic() - began)
            loop.report_progress(done)
            track(done.log[-1])
            if is_main_process() and done.step % config.checkpoint_steps == 0 and done.step < loop.steps:
                save_checkpoint(out, digest, loop.learner, loop.optimizer, done)
    if config.patience:
        set_parameters(loop.learner, done.best)
    return done


def _has_stalled(done: TrainingProgress, patience: int | None) -> bool:
    """Whether the last `patience` evaluations, the latest in the last step, have not lowered the held-out loss."""
    if patience is None or not done.log or "held_out" not in done.log[-1]:
        return False
    return sum(line["step"] > done.best_step for line in done.evaluations) >= patience


class _TrainingLoop:
    """A student in training: its parameters, their optimizer, and the conversations of each step."""

    def __init__(self, training: Training, objective: TrainingObjective) -> None:
        start, data, config = training.start, training.data, training.config
        self.model, self._tokenizer, self._pad = start.model, start.tokenizer, training.pad
        self._data, self._objective, self._config, self._seed = data, objective, config, training.seed
        self._training, self._steps = training, training.steps
        self._judged = [[one for one in data.judged if one.kept is kept] for kept in (True, False)]
        self.learner = torch.nn.ModuleDict({"student": self.model, "projections": objective.projections})
        parameters = list_trainable_parameters(self.learner).values()
        self.optimizer = torch.optim.AdamW(parameters, betas=ADAM_BETAS, weight_decay=0.0, fused=True)
        self._per_step = config.batch_size * config.accumulate
        self._per_epoch = math.ceil(len(data.train) / self._per_step)
        self.steps = self._per_epoch * config.epochs
        self.evaluate_steps = config.evaluate_steps or self._per_epoch
        self._progress, self._reported, self._read = training.progress, time.monotonic(), 0

    def restore_or_measure(self, out: Path, digest: str) -> TrainingProgress:
        """The progress of the last checkpoint, or the measurements before the first step."""
        if pairs := [
            pair
            for pair in zip(self._data.train, self._data.rejected or [None] * len(self._data.train), strict=True)
            if pair[1]
        ]:
            texts = [text for side in zip(*pairs, strict=True) for text in side if text]
            self._objective.record_reference(self.model, texts, self._pad)
        if "kto" in self._objective.weights:
            most = self.steps * self._per_step
            used = [one for side in self._judged for one in _choose_in_turn(side, min(most, len(side)), self._seed, 0)]
            judged = {text for one in used for text in (one.text, one.unrelated)}
            ordered = sorted(judged, key=lambda text: (len(text.ids), text.ids))  # so that little is padded
            self._objective.record_reference(self.model, ordered, self._pad)
        done = load_checkpoint(out, digest, self.learner, self.optimizer, self._progress)
        if done is None:
            before = self._objective.measure(self.model, self._data.held_out, self._pad)
            done = TrainingProgress(step=0, loss_before=before.loss, kl_before=before.kl, seconds=0.0, log=[], best={})
        # Where only some conversations have a rejected counterpart, the first steps may have none.
        provable = self._objective.weights.keys() - ({"dpo"} if None in self._data.rejected else set())
        self._unproven = not self._objective.text_losses >= provable
        self._deadline = min(done.step + (PROOF_STEPS if self._objective.text_losses else 1), self.steps)
        return done

    def run_step(self, step: int) -> dict[str, float]:
        """Train on the conversations of a step, counted from 0. Returns the step's log line."""
        data, per_step = self._data, self._per_step
        epoch, place = divmod(step, self._per_epoch)
        order = shuffle_epoch(len(data.train), self._seed, epoch)[place * per_step :][:per_step]
        examples = [data.train[index] for index in order]
        rejected = [data.rejected[index] for index in order if data.rejected]
        for code in self._steps:
            examples = code.alter_examples(examples, self._seed, step)

        own = self._generate_own_answers(examples, step)
        encoded = own or examples
        tokens = sum(map(count_predicted_tokens, encoded))
        sums: Counter[str] = Counter()
        weights, texts = self._objective.weights, self._objective.text_losses
        rank, processes = rank_and_world_size()
        size = self._config.batch_size
        for begin in range(rank * size, len(encoded), processes * size):
            batch, worse = encoded[begin : begin + size], rejected[begin : begin + size]
            with self._objective.open_autocast(self.model):
                terms = self._objective.compute_terms(self.model, batch, self._pad, rejected=worse, own=bool(own))
                part = terms.scale_to_step(tokens, sum(other is not None for other in rejected))
                loss = part.weighted_sum(weights)
            if self._unproven and not texts.isdisjoint(terms.values) and not texts >= terms.values.keys():
                teacher_loss = terms.without_text_losses(texts).weighted_sum(weights)
                sums[TEACHER_GRADIENTS] += gradient_norm(teacher_loss, self.learner) >= MIN_TEACHER_GRADIENT
            torch.autograd.backward(loss)
            sums.update({"loss": loss.item(), **{name: value.item() for name, value in part.values.items()}})
        if self._unproven and texts.isdisjoint(sums):
            sums[TEACHER_GRADIENTS] += get_total_norm(_collect_gradients(self.learner)).item() >= MIN_TEACHER_GRADIENT
        judged = self._learn_from_verdicts(step, sums)
        replayed = self._learn_from_replay(step, sums)
        names = ["loss", *(name for name in weights if not (own and name in texts)), *([REPLAY] if replayed else [])]
        if not any(rejected) and "dpo" in names:
            names.remove("dpo")
        totals = self._sum_over_processes(sums, names, step)

        rate = learning_rate(step, self.steps, self._config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        all_reduce_sum(_collect_gradients(self.learner))
        clip_grad_norm_(self.learner.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

        self._read += sum(len(text.ids) for text in (*encoded, *rejected, *judged, *replayed) if text)
        parts = {name: totals[name] for name in names[1:] if len(weights) > 1 or replayed}
        for code in self._steps:
            parts |= code.after_update()
        return {"step": step + 1, "loss": totals["loss"], "lr": rate, "tokens": tokens, **parts}

    def _choose_judged(self, step: int) -> list[PreferenceAnswer]:
        """`per_step` kept and `per_step` refused answers, the shortest first; each is used once before any is repeated."""
        chosen = [one for side in self._judged for one in _choose_in_turn(side, self._per_step, self._seed, step)]
        return sorted(chosen, key=lambda one: len(one.text.ids))

    def _learn_from_verdicts(self, step: int, sums: Counter[str]) -> list[EncodedConversation]:
        """Add the gradient of `kto` on the step's kept and refused answers, and its loss to `sums`. Returns them."""
        weight = self._objective.weights.get("kto")
        if weight is None:
            return []
        judged, size = self._choose_judged(step), self._config.batch_size
        divergence = self._objective.estimate_divergence(self.model, judged, self._pad)
        rank, processes = rank_and_world_size()
        for begin in range(rank * size, len(judged), processes * size):
            with self._objective.open_autocast(self.model):
                losses = self._objective.compute_kto(self.model, judged[begin : begin + size], divergence, self._pad)
                part = losses.sum() / len(judged)
                weighted = weight * part
            torch.autograd.backward(weighted)
            sums.update({"loss": weighted.item(), "kto": part.item()})
        return [one.text for one in judged]

    def _learn_from_replay(self, step: int, sums: Counter[str]) -> list[EncodedConversation]:
        """Add the gradient of the step's replay conversations, and their loss to `sums`. Returns them."""
        config = self._config.replay
        if config is None:
            return []
        count = max(1, round(config.share * self._per_step))
        replayed = _choose_in_turn(self._training.replay.learned, count, self._seed, step)
        replayed.sort(key=lambda conversation: len(conversation.ids))  # so that little is padded
        total = sum(map(count_predicted_tokens, replayed))
        rank, processes = rank_and_world_size()
        for batch in _split_by_tokens(replayed, REPLAY_TOKENS)[rank::processes]:
            with self._objective.open_autocast(self.model):
                loss = self._objective.compute_replay_loss(self.model, batch, self._pad)
                part = loss * (sum(map(count_predicted_tokens, batch)) / total)
                weighted = config.weight * part
            torch.autograd.backward(weighted)
            sums.update({"loss": weighted.item(), REPLAY: part.item()})
        return replayed

    def evaluate(self, done: TrainingProgress) -> TrainingProgress:
        """`done` with the held-out loss in the log's last line, and with the current parameters if they are the best."""
        done.log[-1]["held_out"] = compute_held_out_loss(self.model, self._data.held_out, self._pad)
        for code in self._steps:
            done.log[-1].update(code.measure_held_out(self._training))
        if self._config.patience and done.best_step == done.step:
            now = {
                name: parameter.detach().clone() for name, parameter in list_trainable_parameters(self.learner).items()
            }
            return done._replace(best=now)
        return done

    def report_progress(self, done: TrainingProgress) -> None:
        """Print progress every few seconds."""
        if (passed := time.monotonic() - self._reported) > PROGRESS_SECONDS:
            line = done.log[-1]
            held_out = f", held-out loss {line['held_out']:.2f}" if "held_out" in line else ""
            pace = f"{self._read / passed:.0f} tokens/s"
            self._progress(f"student: step {done.step}/{self.steps}, loss {line['loss']:.2f}{held_out}, {pace}")
            self._reported, self._read = time.monotonic(), 0

    def _generate_own_answers(self, examples: list[EncodedConversation], step: int) -> list[EncodedConversation] | None:
        """The student's answers in place of the examples', in the recipe's share of the steps (`lmbda`)."""
        rng = random.Random(f"own answers {step} of {self._seed}")
        distillation = self._config.distillation
        if rng.random() >= distillation.lmbda:
            return None
        return generate_own_answers(
            self.model,
            examples,
            stop=find_stop_ids(self._tokenizer),
            pad=self._pad,
            max_new_tokens=distillation.max_new_tokens,
            temperature=distillation.temperature,
            seed=rng.getrandbits(63),
        )

    def _sum_over_processes(self, values: Counter[str], names: list[str], step: int) -> dict[str, float]:
        """The sums over all processes. Raises RunFailed if the training cannot continue."""
        names = [*names, TEACHER_GRADIENTS]
        sums = torch.tensor([values[name] for name in names], dtype=torch.float64, device=self.model.device)
        all_reduce_sum([sums])
        totals = dict(zip(names, sums.tolist(), strict=True))
        if not math.isfinite(totals["loss"]):
            rate = self._config.learning_rate
            raise RunFailed(f"student: the loss is {totals['loss']} at step {step + 1}; lower learning_rate = {rate}")
        self._unproven = self._unproven and not totals[TEACHER_GRADIENTS]
        if self._unproven and step + 1 >= self._deadline:
            objectives = ", ".join(
                name for name in self._config.objective_weights if name not in self._objective.text_losses
            )
            raise RunFailed(
                f"student: {objectives} had no gradient, so the teacher taught nothing; the student may equal its teacher "
                "already: choose fewer layers, another start or another teacher"
            )
        return totals


def _choose_in_turn(rows: Sequence[Row], count: int, seed: int, step: int) -> list[Row]:
    """The `count` rows of a step: all are used in turn, in a new order each time."""
    first, end, size = step * count, (step + 1) * count, len(rows)
    orders = {turn: shuffle_epoch(size, seed, turn) for turn in range(first // size, (end - 1) // size + 1)}
    return [rows[orders[place // size][place % size]] for place in range(first, end)]


def _split_by_tokens(conversations: list[EncodedConversation], most: int) -> list[list[EncodedConversation]]:
    """Consecutive groups with at most this number of learned tokens each, or with one conversation."""
    groups: list[list[EncodedConversation]] = []
    room = 0
    for conversation in conversations:
        tokens = count_predicted_tokens(conversation)
        if not groups or tokens > room:
            groups.append([])
            room = most
        groups[-1].append(conversation)
        room -= tokens
    return groups


def _collect_gradients(learner: torch.nn.Module) -> Iterator[torch.Tensor]:
    """The gradients of all trainable parameters; zero where this process had no data."""
    for parameter in list_trainable_parameters(learner).values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        yield parameter.grad


WARM_UP_SHARE = 0.1
"""Share of the steps in which the learning rate rises: Adam's first estimates of scale are poor."""
FINAL_RATE_SHARE = 0.1
"""The last learning rate as a share of the peak, as in Chinchilla (arXiv 2203.15556, appendix B)."""


def learning_rate(step: int, steps: int, config: StudentConfig) -> float:
    """The learning rate of step `step`, counted from 0: linear warm-up to the peak, then `config.schedule`.

    `cosine` decays by half a cosine after the warm-up. `wsd` is constant and decays in its last share (MiniCPM, arXiv
    2404.06395, section 4.2), by a square root (arXiv 2405.18392, section 3.2). `constant` does not decay.
    """
    warm = max(1, round(WARM_UP_SHARE * steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    match config.schedule:  # the completed share of the decay, from 0 to 1
        case "cosine":
            decayed = (1 - math.cos(math.pi * (step - warm + 1) / (steps - warm))) / 2
        case "wsd":
            decay = max(1, round(config.decay * steps))
            decayed = math.sqrt(max(0, step + 1 - (steps - decay)) / decay)
        case "constant":
            decayed = 0.0
    return config.learning_rate * (1 - (1 - FINAL_RATE_SHARE) * decayed)


LogCallback = Callable[[Mapping[str, float]], None]


def check_trackers(config: StudentConfig) -> None:
    """Raises UsageError where a package is missing."""
    for name in config.track:
        if find_spec(name) is None:
            command = format_install_command("tracking") if name == "tensorboard" else f"`pip install {name}`"
            raise UsageError(f"student.track: {name} is not installed: run {command}, or leave it out")


@contextmanager
def _track_training(config: StudentConfig, out: Path, digest: str, done: int) -> Iterator[LogCallback]:
    """Send each line of the log to each of `config.track`, from the main process. Steps after `done`, a checkpoint's last
    step, are sent again.

    TensorBoard's files are in `NAME.tensorboard` next to the student; for Weights & Biases the training is a run of the
    project `stillhouse`, configured by its environment (`WANDB_MODE`, `WANDB_API_KEY`).
    """
    openers = {"tensorboard": lambda: _open_tensorboard(out, done), "wandb": lambda: _open_wandb(config, out, digest)}
    with ExitStack() as stack:
        trackers = [stack.enter_context(openers[name]()) for name in config.track if is_main_process()]

        def track(line: Mapping[str, float]) -> None:
            for tracker in trackers:
                tracker(line)

        yield track


@contextmanager
def _open_tensorboard(out: Path, done: int) -> Iterator[LogCallback]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out.with_name(f"{out.name}.tensorboard")), purge_step=done + 1) as writer:

        def track(line: Mapping[str, float]) -> None:
            for name, value in line.items():
                if name != "step":
                    writer.add_scalar(name, value, int(line["step"]))

        yield track


@contextmanager
def _open_wandb(config: StudentConfig, out: Path, digest: str) -> Iterator[LogCallback]:
    import wandb

    settings: dict[str, Any] = config.model_dump(mode="json")
    with wandb.init(project="stillhouse", name=out.name, id=digest[:16], resume="allow", config=settings) as run:
        yield lambda line: run.log(dict(line), step=int(line["step"]))
