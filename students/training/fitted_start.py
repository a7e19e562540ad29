"""A pruned and fitted start, stored next to the checkpoint: another process or number of threads would fit other weights.

So a training that resumes, and all processes of `torchrun`, begin with the same one.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from core.config.students import SparsityConfig
from core.storage.atomic_files import write_atomically
from students.architectures.architecture import find_layers, iterate_matrices
from students.distributed import is_main_process, main_process_first
from students.init.reconstruction import prune_and_reconstruct
from students.init.start_model import StartModel
from students.token_batches import TokenBatch
from students.training.checkpoint import locate_checkpoint


def fit_start_once(
    start: StartModel,
    batch: TokenBatch,
    config: SparsityConfig,
    out: Path,
    digest: str,
    progress: Callable[[str], None],
) -> None:
    """Prune and fit `start`, in place, or load what was fitted for the training `digest` of `out`."""
    file = locate_checkpoint(out) / "fitted_start.safetensors"
    with main_process_first():
        if load_fitted_weights(start, file, digest):
            progress("student: the pruned and fitted start is loaded")
            return
        prune_and_reconstruct(start.model, batch, config, progress)
        if is_main_process():
            with write_atomically(file) as partial:
                save_file(name_layer_weights(start), partial, {"digest": digest})


@torch.no_grad()
def load_fitted_weights(start: StartModel, file: Path, digest: str) -> bool:
    """False if there is no such file, or it is damaged or of another training."""
    if not file.exists():
        return False
    try:
        with safe_open(file, "pt") as stored:
            if (stored.metadata() or {}).get("digest") != digest:
                return False
            for name, weight in name_layer_weights(start).items():
                weight.copy_(stored.get_tensor(name))
    except SafetensorError:
        return False
    return True


def name_layer_weights(start: StartModel) -> dict[str, torch.Tensor]:
    """The matrices of all layers, as `layer.name`."""
    return {
        f"{number}.{name}": matrix.weight.detach()
        for number, layer in enumerate(find_layers(start.model))
        for name, matrix in iterate_matrices(layer)
    }
