"""Low-rank adapters (LoRA, arXiv 2106.09685): trained in the place of a student's matrices, and merged into them in the end.

Knows peft; knows nothing of training.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from core.errors import UsageError
from core.student_config import LoraConfig

if TYPE_CHECKING:
    import peft

FOLDER = "adapter"
"""Within a student's folder, where peft reads it: `PeftModel.from_pretrained(start, DIR)`."""
NAME = "default"
"""Under which peft looks for it if it is told nothing else."""
WEIGHTS = "adapter_model.safetensors"


class Adapter(NamedTuple):
    """What was learned, apart from what it was learned on."""

    settings: "peft.PeftConfig"
    weights: dict[str, torch.Tensor]

    def write(self, folder: Path) -> None:
        folder.mkdir()
        self.settings.save_pretrained(str(folder))
        save_file(self.weights, folder / WEIGHTS, {"format": "pt"})


def adapted(model: PreTrainedModel, config: LoraConfig) -> "peft.LoraModel":
    """Freeze `model` and put adapters on it, in place. What they begin as is drawn from torch's global generator, and changes
    nothing yet.

    Raises:
        UsageError: if a target is no matrix of the model, or the rank is not below the sides of all targets.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise UsageError(
            f"student.lora needs the extra `train` ({error.name} is missing): run `make install`"
        ) from None
    targets = checked_targets(model, config)
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets, task_type="CAUSAL_LM")
    return peft.LoraModel(model, settings, NAME)


def checked_targets(model: PreTrainedModel, config: LoraConfig) -> list[str]:
    """The last parts of the names of the matrices to adapt."""
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
                f"student.lora.rank = {config.rank}: {name} is a matrix of {sides[0]} x {sides[1]}, of which that is no low "
                "rank; lower it, choose other targets or leave lora out"
            )
    return list(targets)


def merged(adapted: "peft.LoraModel") -> Adapter:
    """Add what the adapters learned to the matrices below them, in place, and take the adapters off."""
    import peft

    found = peft.get_peft_model_state_dict(adapted, adapter_name=NAME)
    weights = {f"base_model.{name}": tensor.detach().cpu().clone() for name, tensor in found.items()}
    settings = adapted.peft_config[NAME]
    settings.inference_mode = True
    adapted.merge_and_unload()
    return Adapter(settings, weights)
