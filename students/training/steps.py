"""What a step does in a student's training: the code of `[[student.steps]]`, which `core.config.student_steps` describes.

The training calls every method of every step, in the recipe's order of the steps. Each has a default that does nothing.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from core.config.students import StudentConfig
from core.runs.student_records import StepRecord
from students.chat_encoding import EncodedConversation, find_pad_id
from students.init.start_model import StartModel
from students.predictions import TokenBatch, TokenPredictions
from students.training_data import TrainingData

if TYPE_CHECKING:
    import peft

ComputeTerms = Callable[[TokenPredictions], Mapping[str, torch.Tensor]]
"""The terms of a loss in nats per token, by name, from the student's predictions of a batch."""


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

    @property
    def pad(self) -> int:
        return find_pad_id(self.start.tokenizer)

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

    def finish(self, training: Training) -> None:
        """After the training, in place, before adapters are merged."""

    def describe(self, training: Training, log: Sequence[Mapping[str, float]]) -> StepRecord | None:
        """What the record and the card of the finished student say of it. `log` has a line for each step of the training."""
        return None

    def write_files(self, folder: Path) -> None:
        """Store what `rebuild` needs in the folder of the finished student."""
