"""What a step does in a student's training: the code of `[[student.steps]]`, which `core.config.student_steps` describes.

The training calls every method of every step, in the recipe's order of the steps. Each has a default that does nothing.
"""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from core.config.students import StudentConfig
from core.runs.student_records import StepRecord
from students.chat_encoding import EncodedConversation, find_pad_id
from students.predictions import (
    EVALUATION_BATCH,
    TokenBatch,
    TokenPredictions,
    build_batch,
    cast_weights,
    predict_tokens,
)
from students.replay import NO_REPLAY, ReplayTexts
from students.start_model import StartModel
from students.training.loss_functions import forward_kl
from students.training_data import TrainingData

if TYPE_CHECKING:
    import peft

ComputeTerms = Callable[[TokenPredictions], Mapping[str, torch.Tensor]]
"""The terms of a loss in nats per token, by name, from the student's predictions of a batch."""


@torch.no_grad()
def measure_divergences(
    model: PreTrainedModel,
    compute_start: Callable[[TokenBatch], torch.Tensor],
    conversations: Sequence[EncodedConversation],
    pad: int,
    batch_size: int,
) -> list[torch.Tensor]:
    """The forward KL divergence of `model` from its start at each learned token of each conversation, in nats, shape (tokens,).

    Forward: the expectation is over the start's predictions, so that words which it found likely and the model forgot count most.
    `compute_start` returns the start's log-probabilities of all words, of shape (tokens, words).
    """
    training = model.training
    model.train(False)
    divergences: list[torch.Tensor] = []
    for first in range(0, len(conversations), batch_size):
        batch = build_batch(conversations[first : first + batch_size], pad)
        start = compute_start(batch)
        found = predict_tokens(model, batch)
        values = forward_kl(found.logits.log_softmax(-1), start).cpu()
        sizes = found.rows.bincount(minlength=len(batch.ids)).tolist()
        divergences += values.split(sizes)  # type: ignore[no-untyped-call]
    model.train(training)
    return divergences


class StartReference:
    """The start's probabilities: of a frozen copy, or with adapters of the model itself without them."""

    def __init__(
        self, model: PreTrainedModel, adapters: "peft.LoraModel | None", dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self._adapters = adapters
        self._model = model if adapters else cast_weights(copy.deepcopy(model), dtype).requires_grad_(False)

    @torch.no_grad()
    def compute_log_probs(self, batch: TokenBatch) -> torch.Tensor:
        """Log-probabilities of all words for each learned token of the batch, of shape (tokens, words)."""
        with self._without_adapters():
            return predict_tokens(self._model, batch).logits.log_softmax(-1)

    @torch.no_grad()
    def measure_divergence(
        self, model: PreTrainedModel, conversations: Sequence[EncodedConversation], pad: int
    ) -> float:
        """Mean forward KL divergence of `model` from its start, in nats per learned token."""
        values = measure_divergences(model, self.compute_log_probs, conversations, pad, EVALUATION_BATCH)
        return float(torch.cat(values).double().mean())

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        if self._adapters is None:
            yield
            return
        self._adapters.disable_adapter_layers()
        try:
            yield
        finally:
            self._adapters.enable_adapter_layers()


@dataclass
class Training:
    """A training: what it is of, and what its steps have made of the start so far."""

    config: StudentConfig
    seed: int
    out: Path
    digest: str
    """Of everything that the finished student depends on."""
    progress: Callable[[str], None]
    start: StartModel
    """Changed by each step in turn, and trained in place."""
    data: TrainingData
    steps: "Sequence[StepCode]" = ()
    adapters: "peft.LoraModel | None" = None
    reference: StartReference | None = None
    """With `replay`, or a step that `reads_start`."""
    replay: ReplayTexts = NO_REPLAY

    @property
    def pad(self) -> int:
        return find_pad_id(self.start.tokenizer)

    def measure_forgetting(self) -> float | None:
        """The student's divergence from its start on held-out replay conversations, in nats per token, in the precision of the
        training; None without any.
        """
        if self.reference is None or not self.replay.held_out:
            return None
        model = self.start.model
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.reference.measure_divergence(model, self.replay.held_out, self.pad)

    def sample_calibration(self, count: int) -> list[EncodedConversation]:
        """Training conversations on which a start is measured."""
        train = self.data.train
        return random.Random(f"calibration {self.seed}").sample(train, min(count, len(train)))


class StepCode:
    """The base class of a step's code. An instance belongs to one training."""

    weights: Mapping[str, float] = {}
    """Of the terms that the step adds to the loss, by name."""
    reads_last_states = False
    """Whether these terms need the student's last hidden states."""

    def build_start(self, config: StudentConfig) -> StartModel:
        """The new model of `start = "random"`, by a step that `makes_start`. May use torch's global generator."""
        raise NotImplementedError

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        """The student to train, from `start` with the final vocabulary; partly in place. May use torch's global generator."""
        return start

    def rebuild(self, start: StartModel, student: Path) -> StartModel:
        """What `prepare` made of `start`, as the folder of the finished student records it: its untrained form, to compare."""
        return start

    def begin(self, training: Training) -> None:
        """Before the training, with adapters in place; in a resumed one too, with the weights before the first step."""

    def resume(self, training: Training) -> None:
        """After the weights of a checkpoint were restored, if there is one, and before the next step."""

    def alter_examples(self, examples: list[EncodedConversation], seed: int, step: int) -> list[EncodedConversation]:
        """The training conversations of a step, counted from 0. It depends on its arguments only, so a resumed training has the
        same.
        """
        return examples

    def open_losses(self, model: PreTrainedModel, batch: TokenBatch) -> ComputeTerms | None:
        """Called before the student's pass over a batch. Returns what computes the terms of `weights` from its predictions."""
        return None

    def after_update(self) -> Mapping[str, float]:
        """After each step of the optimizer. Returns values for the log."""
        return {}

    def measure_held_out(self, training: Training) -> Mapping[str, float]:
        """Losses to add to the held-out loss, which `patience` lowers. Their names begin with `held_out_`."""
        return {}

    def finish(self, training: Training) -> None:
        """After the training, in place, before adapters are merged."""

    def describe(self, training: Training, log: Sequence[Mapping[str, float]]) -> StepRecord | None:
        """What the record and the card of the finished student say of it. `log` has a line for each step of the training."""
        return None

    def write_files(self, folder: Path) -> None:
        """Store what `rebuild` needs in the folder of the finished student."""
