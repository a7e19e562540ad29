"""Averages of a student's weights with those of its start (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).

An average keeps more of what the start could do than the trained weights (for alignment: Lin et al. 2024, arXiv 2309.06256).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from students.training.checkpoint import list_trainable_parameters

if TYPE_CHECKING:
    import peft


def copy_parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in list_trainable_parameters(model).items()}


@torch.no_grad()
def average_with_start(model: torch.nn.Module, start: Mapping[str, torch.Tensor], share: float) -> None:
    """Set each trainable parameter to start + `share` * (trained - start), in place; a share of 1 changes none."""
    for name, parameter in list_trainable_parameters(model).items():
        parameter.copy_(torch.lerp(start[name].to(parameter), parameter, share))


@torch.no_grad()
def scale_adapters(adapters: "peft.LoraModel", share: float) -> None:
    """The same for the matrices that low-rank adapters update: their product is the difference from the start."""
    for name, parameter in list_trainable_parameters(adapters).items():
        if ".lora_B." in name:
            parameter.mul_(share)
