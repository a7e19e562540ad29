"""Weights in bfloat16, in which students are stored. Knows models; knows no file.

Only parameters are rounded. Buffers, such as the frequencies of rotary positions, are in no file, and are computed in float32
when a student is loaded; `model.bfloat16()` would shift the frequencies by up to 0.4 %.
"""

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def round_weights(model: PreTrainedModel) -> None:
    """Give the parameters the values that they have when stored, in place, in their own precision."""
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())


def cast_weights(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model, its parameters in `dtype`."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model
