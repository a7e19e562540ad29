"""Losses of installed packages, as a student's `objective` names them. Knows their settings and no tensor."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.extensions import ExtensionPoint

BUILT_IN_LOSSES = (
    "sft", "forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "alpha_beta", "hidden", "dpo", "kto"
)  # fmt: skip
TRAINING_LOG_FIELDS = ("step", "loss", "lr", "tokens", "held_out", "teaches", "mtp", "flips")
"""Fields of the training log, and of the sums that it is made of, next to the losses by name."""


class LossOptions(BaseModel):
    """The keys of `[student.loss_options.NAME]`. Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Loss:
    """A loss by name, of the assistant's tokens."""

    name: str
    compute: Callable[[Any, Any, Any], Any]
    """The loss of each token, a tensor of shape (tokens,), from two tensors and the options.

    Without a teacher: the student's logits of shape (tokens, words), and the next tokens, shape (tokens,). With a teacher: the
    log-probabilities of student and teacher, both of shape (tokens, outcomes). Outcomes are all words, or the most likely ones
    and one for all others (`signals = "top_k"`)."""
    options: type[LossOptions] = LossOptions
    needs_teacher: bool = False
    """Whether it compares the student with a teacher."""


LOSS_EXTENSIONS: ExtensionPoint[Loss] = ExtensionPoint(
    "loss", Loss, lambda: BUILT_IN_LOSSES, reserved=TRAINING_LOG_FIELDS
)


def loss(
    name: str, options: type[LossOptions] = LossOptions, *, needs_teacher: bool = False
) -> Callable[[Callable[[Any, Any, Any], Any]], Loss]:
    """Turn a function of two tensors and options into a loss, as `Loss.compute` describes it."""
    return lambda compute: Loss(name, compute, options, needs_teacher)
