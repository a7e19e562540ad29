"""The losses of distillation in nats, a function each.

Knows probabilities only: not their source, their tokens, or the weights of losses.

Divergences compare log-probabilities of shape (tokens, outcomes), the teacher's as `p` and the student's as `q`, and return
a number per token. The outcomes are all words, or some words and one outcome for all others. Names and conventions are
those of TRL 1.16, if it has the loss.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from core.config.students import DistillationConfig

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of the student's log-probabilities and the teacher's, both of shape (tokens, outcomes)."""


TokenLoss = Callable[[torch.Tensor, slice], torch.Tensor]
"""Of float32 logits of shape (tokens, words) and the place of these tokens: the loss of each, of shape (tokens,)."""
BLOCK_LOGITS = {"cpu": 2**20, "cuda": 2**26}
"""Logits in one block of tokens: 4 MB stay in a core's cache; a GPU needs more work at once."""


def compute_in_blocks(logits: torch.Tensor, loss: TokenLoss) -> torch.Tensor:
    """The loss of each token, shape (tokens,), from logits of any precision.

    Losses and their gradients are computed block by block, so no array of all tokens and words in float32 is ever stored.
    """
    size = max(1, BLOCK_LOGITS[logits.device.type] // logits.shape[1])
    spans = [slice(begin, begin + size) for begin in range(0, len(logits), size)]
    if torch.is_grad_enabled() and logits.requires_grad:
        return _BlockLoss.apply(logits, loss, spans)  # type: ignore[no-any-return, no-untyped-call]
    return torch.cat([loss(logits[span].float(), span) for span in spans])


class _BlockLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, loss: TokenLoss, spans: Sequence[slice]) -> torch.Tensor:
        gradient, losses = torch.empty_like(logits), []
        for span in spans:
            with torch.enable_grad():
                block = logits[span].detach().float().requires_grad_()
                losses.append(values := loss(block, span))
                gradient[span] = torch.autograd.grad(values.sum(), block)[0]
        ctx.save_for_backward(gradient)
        return torch.cat(losses).detach()

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return torch.mul(gradient, outer[0][:, None], out=torch.empty_like(gradient)), None, None


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of the target of each token, of shape (tokens,)."""
    return compute_in_blocks(
        logits, lambda block, span: functional.cross_entropy(block, targets[span], reduction="none")
    )


def forward_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(p || q): the student must cover everything that the teacher finds likely (Hinton et al., arXiv 1503.02531)."""
    return _kl_divergence(teacher, student)


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(q || p): the student must say nothing that the teacher finds unlikely (MiniLLM, arXiv 2306.08543)."""
    return _kl_divergence(student, teacher)


def jsd(student: torch.Tensor, teacher: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Generalized: beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q (GKD, arXiv 2306.13649, equation 1).

    By TRL's convention, beta = 0 is the forward and 1 the reverse KL divergence: its limits, divided by beta and 1 - beta.
    """
    if beta in (0, 1):
        return reverse_kl(student, teacher) if beta else forward_kl(student, teacher)
    mixture = _mix_log_probabilities(teacher, student, beta)
    return beta * _kl_divergence(teacher, mixture) + (1 - beta) * _kl_divergence(student, mixture)


def skew_kl(student: torch.Tensor, teacher: torch.Tensor, *, skew: float) -> torch.Tensor:
    """KL(p || skew p + (1 - skew) q) (DistiLLM, arXiv 2402.03898, equation 4)."""
    return _kl_divergence(teacher, _mix_log_probabilities(teacher, student, skew))


def skew_rkl(student: torch.Tensor, teacher: torch.Tensor, *, skew: float) -> torch.Tensor:
    """KL(q || (1 - skew) p + skew q) (DistiLLM, equation 5)."""
    return _kl_divergence(student, _mix_log_probabilities(student, teacher, skew))


def alpha_beta_divergence(student: torch.Tensor, teacher: torch.Tensor, *, alpha: float, beta: float) -> torch.Tensor:
    """The alpha-beta divergence of p from q (ABKD, arXiv 2505.04560, definition 3.2).

    -1 / (alpha beta) sum(p^alpha q^beta - alpha / (alpha + beta) p^(alpha + beta) - beta / (alpha + beta) q^(alpha + beta)),
    and its limit where one of the two is 0: (1, 0) is the forward, (0, 1) the reverse KL divergence.
    """
    if not beta:
        return _generalised_kl(teacher, student, alpha)
    if not alpha:
        return _generalised_kl(student, teacher, beta)
    total = alpha + beta
    both = (alpha * teacher + beta * student).exp()
    own = (alpha * (total * teacher).exp() + beta * (total * student).exp()) / total
    return (own - both).sum(-1) / (alpha * beta)


def hidden_state_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """One minus the cosine between hidden states of shape (tokens, width), as in DistilBERT (arXiv 1910.01108, section 3).

    A few entries of a Llama's hidden states are hundreds of times larger than the rest and would dominate a squared error.
    """
    return 1 - functional.cosine_similarity(student, teacher, dim=-1)


def dpo_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, chosen_before: torch.Tensor, rejected_before: torch.Tensor, *, beta: float
) -> torch.Tensor:  # fmt: skip
    """The loss of each pair, from summed log-probabilities of both answers now and at the start (arXiv 2305.18290, eq. 7).

    TRL's `loss_type="sigmoid"`.
    """
    return -functional.logsigmoid(beta * ((chosen - chosen_before) - (rejected - rejected_before)))


def kto_loss(
    now: torch.Tensor, before: torch.Tensor, kept: torch.Tensor, divergence: float, *, beta: float
) -> torch.Tensor:
    """The loss of each answer, from its summed log-probabilities now and at the start (arXiv 2402.01306, eq. 7, with both
    weights 1). `kept` has its verdict; `divergence` is the student's from its start, in nats per answer.

    TRL's `loss_type="kto"`.
    """
    gained = now - before - divergence
    return 1 - torch.sigmoid(beta * torch.where(kept, gained, -gained))


def select_divergence(name: str, config: DistillationConfig) -> Divergence:
    """The divergence of this name with the parameters of the recipe."""
    alpha, beta = config.alpha_beta
    return {
        "forward_kl": forward_kl,
        "reverse_kl": reverse_kl,
        "jsd": lambda q, p: jsd(q, p, beta=config.beta),
        "skew_kl": lambda q, p: skew_kl(q, p, skew=config.skew),
        "skew_rkl": lambda q, p: skew_rkl(q, p, skew=config.skew),
        "alpha_beta": lambda q, p: alpha_beta_divergence(q, p, alpha=alpha, beta=beta),
    }[name]


def _kl_divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Outcomes of zero probability in `first` contribute nothing."""
    possible = first > -math.inf
    difference = torch.where(possible, first, 0.0) - torch.where(possible, second, 0.0)
    return (first.exp() * difference).sum(-1)


def _mix_log_probabilities(first: torch.Tensor, second: torch.Tensor, share: float) -> torch.Tensor:
    """log(share first + (1 - share) second)."""
    return torch.logaddexp(first + math.log(share), second + math.log1p(-share))


def _generalised_kl(first: torch.Tensor, second: torch.Tensor, power: float) -> torch.Tensor:
    """The limit of the alpha-beta divergence for one exponent of 0: the KL divergence of unnormalized powers."""
    difference = power * (first - second)
    return ((power * first).exp() * difference - (power * first).exp() + (power * second).exp()).sum(-1) / power**2
