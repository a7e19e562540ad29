"""The weights of the comparison with TRL, after its sampling."""

import torch


@torch.no_grad()
def move_weights(model: torch.nn.Module) -> None:
    """Change each parameter by noise, so that some ratios of probabilities are outside the clipping range."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
