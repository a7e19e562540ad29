"""The loss of GRPO (Shao et al. 2024, DeepSeekMath, arXiv 2402.03300, equations 3 and 4), without its sampling.

With rewards r_1 … r_G of the answers to one request, the advantage of each token of answer i is

    A_i = (r_i - mean(r)) / (std(r) + 1e-4)

and with the probability ratio w = now / sampled of a token, the loss is the mean over answers of the mean over their tokens of

    -min(w A_i, clip(w, 0.8, 1.2) A_i) + 0.04 w (start / now - log(start / now) - 1)

The last term estimates the KL divergence from the start; w makes its gradient unbiased (DeepSeek-V3.2, arXiv 2512.02556). All
else is the paper's, with the `std` of a sample and 1e-4 as in TRL, whose `loss_type="grpo"` this is. Knows no model.
"""

from typing import NamedTuple

import torch

CLIP = 0.2
KL_WEIGHT = 0.04
LEAST_DEVIATION = 1e-4


class PolicyLoss(NamedTuple):
    loss: torch.Tensor
    """A scalar with a gradient."""
    divergence: float
    """From the start, in nats per token."""
    clipped: float
    """The share of tokens whose ratio has no gradient."""


def normalize_rewards(rewards: torch.Tensor) -> torch.Tensor:
    """The advantage of each answer, from rewards of shape (requests, answers). Equal rewards give 0."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + LEAST_DEVIATION)


def compute_policy_loss(
    now: torch.Tensor, sampled: torch.Tensor, start: torch.Tensor, rows: torch.Tensor, advantages: torch.Tensor
) -> PolicyLoss:
    """Args:
    now, sampled, start: log-probabilities of the answers' tokens by the student, by the weights that sampled them and by the
        start, of shape (tokens,).
    rows: the answer of each token, of shape (tokens,).
    advantages: of shape (answers,).
    """
    gained = advantages[rows]
    ratio = (now - sampled).exp()
    limited = ratio.clamp(1 - CLIP, 1 + CLIP)
    divergence = (start - now).exp() - (start - now) - 1
    losses = -torch.min(ratio * gained, limited * gained) + KL_WEIGHT * ratio * divergence
    sums = losses.new_zeros(len(advantages)).index_add(0, rows, losses)
    lengths = rows.bincount(minlength=len(advantages)).clamp(min=1)
    clipped = (limited * gained < ratio * gained).float().mean()
    return PolicyLoss((sums / lengths).mean(), float(divergence.detach().mean()), float(clipped))
