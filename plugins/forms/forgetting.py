"""Steps that hold a student near its start while it is trained."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from students.predictions import TokenBatch, TokenPredictions
from students.training.loss_functions import forward_kl
from students.training.steps import ComputeTerms, StepCode, Training

START_KL = "start_kl"
"""The name of the divergence from the start on the data, next to the objectives."""


class StartKlCode(StepCode):
    """The step `start_kl`."""

    def __init__(self, weight: float) -> None:
        self.weights = {START_KL: weight}

    def begin(self, training: Training) -> None:
        assert training.reference
        self._reference = training.reference

    def open_losses(self, model: PreTrainedModel, batch: TokenBatch) -> ComputeTerms:
        start = self._reference.compute_log_probs(batch)  # before the student's pass, which has its adapters

        def compute(predictions: TokenPredictions) -> dict[str, torch.Tensor]:
            return {START_KL: forward_kl(predictions.logits.log_softmax(-1), start).mean()}

        return compute


class ForgettingStopCode(StepCode):
    """The step `forgetting_stop`."""

    def measure_held_out(self, training: Training) -> Mapping[str, float]:
        return {"held_out_replay": training.measure_forgetting() or 0.0}
