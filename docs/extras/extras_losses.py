import torch
from torch.nn import functional

from stillhouse import LossOptions, loss


class FocalOptions(LossOptions):
    gamma: float = 2.0


@loss("focal", FocalOptions)
def focal(logits: torch.Tensor, targets: torch.Tensor, options: FocalOptions) -> torch.Tensor:
    """Cross-entropy, with less weight on tokens that are predicted well (Lin et al. 2017, arXiv 1708.02002)."""
    cross_entropy = functional.cross_entropy(logits, targets, reduction="none")
    return (1 - (-cross_entropy).exp()) ** options.gamma * cross_entropy
