"""Low-rank adapters (LoRA, arXiv 2106.09685): trained instead of a student's matrices, and merged into them afterwards.

Knows peft; knows nothing of training.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from core.config.students import LoraConfig
from core.errors import UsageError

if TYPE_CHECKING:
    import peft

ADAPTER_FOLDER = "adapter"
"""In a student's folder, readable by peft: `PeftModel.from_pretrained(start, DIR)`."""
ADAPTER_NAME = "default"
"""The adapter name that peft loads by default."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"


class LoraAdapter(NamedTuple):
    """A trained adapter without its base model."""

    settings: "peft.PeftConfig"
    weights: dict[str, torch.Tensor]

    def write_folder(self, folder: Path) -> None:
        folder.mkdir()
        self.settings.save_pretrained(str(folder))
        save_file(self.weights, folder / ADAPTER_WEIGHTS, {"format": "pt"})


def add_adapters(model: PreTrainedModel, config: LoraConfig) -> "peft.LoraModel":
    """Freeze `model` and add adapters, in place. Their initial weights come from torch's global generator and change nothing.

    Raises:
        UsageError: if a target is not a matrix of the model, or the rank is not below the sides of all targets.
    """
    import peft

    targets = _resolve_targets(model, config)
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets, task_type="CAUSAL_LM")
    return peft.LoraModel(model, settings, ADAPTER_NAME)


def _resolve_targets(model: PreTrainedModel, config: LoraConfig) -> list[str]:
    """The names of the matrices to adapt, without their path."""
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    matrices = {
        name.rsplit(".", 1)[-1]: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    }
    targets = config.targets or sorted(matrices)
    if unknown := [name for name in targets if name not in matrices]:
        raise UsageError(
            f"student.lora.targets: {', '.join(unknown)}: no such matrix in a {type(model).__name__}; "
            f"there are {', '.join(sorted(matrices)) or 'none'}"
        )
    for name in targets:
        sides = (matrices[name].in_features, matrices[name].out_features)
        if config.rank >= min(sides):
            raise UsageError(
                f"student.lora.rank = {config.rank}: is not a low rank for {name}, a matrix of {sides[0]} x {sides[1]}; "
                "lower it, choose other targets or leave lora out"
            )
    return list(targets)


def merge_adapters(adapted: "peft.LoraModel") -> LoraAdapter:
    """Add the adapters to their matrices, in place, and remove them from the model."""
    import peft

    state = peft.get_peft_model_state_dict(adapted, adapter_name=ADAPTER_NAME)
    weights = {f"base_model.{name}": tensor.detach().cpu().clone() for name, tensor in state.items()}
    settings = adapted.peft_config[ADAPTER_NAME]
    settings.inference_mode = True
    adapted.merge_and_unload()
    return LoraAdapter(settings, weights)
