"""The step `sparsity`: pruned before the training, whose zeros stay.

A pruned and fitted start is stored next to the checkpoint: another process or number of threads would fit other weights. So a
training that resumes, and all processes of `torchrun`, begin with the same one.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from core.runs.student_records import StepRecord
from core.storage.atomic_files import write_atomically
from plugins.forms.reconstruction import prune_and_reconstruct
from plugins.forms.sparsity import Pruning, compute_zero_share, freeze_zeros, prune_weights
from students.architecture import find_layers, iterate_matrices
from students.distributed import is_main_process, main_process_first
from students.predictions import TokenBatch, build_batch, compute_held_out_loss
from students.start_model import StartModel
from students.training.checkpoint import locate_checkpoint
from students.training.steps import StepCode, Training


class SparsityCode(StepCode):
    def __init__(self, pruning: Pruning, conversations: int, *, reconstruct: bool) -> None:
        self._pruning, self._conversations, self._reconstruct = pruning, conversations, reconstruct
        self._losses = (0.0, 0.0)

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        before = compute_held_out_loss(start.model, training.data.held_out, training.pad)
        batch = build_batch(training.sample_calibration(self._conversations), training.pad)
        if self._reconstruct:
            fit_start_once(start, batch, self._pruning, training.out, training.digest, training.progress)
        else:
            prune_weights(start.model, batch, self._pruning)
        freeze_zeros(start.model)
        after = compute_held_out_loss(start.model, training.data.held_out, training.pad)
        training.progress(
            f"student: {compute_zero_share(start.model):.1%} of the weights in its layers set to zero by "
            f"{self._pruning.method}, held-out loss {before:.2f} -> {after:.2f}"
        )
        self._losses = (before, after)
        return start

    def describe(self, training: Training, log: Sequence[Mapping[str, float]]) -> StepRecord:
        zeros, (before, after) = compute_zero_share(training.start.model), self._losses
        text = f"{zeros:.1%}; held-out loss unpruned {before:.3f}, pruned {after:.3f}"
        rows = {"weights of the layers that are zero": text}
        return StepRecord(type="sparsity", rows=rows, values={"zeros": zeros, "loss_unpruned": before})


def fit_start_once(
    start: StartModel,
    batch: TokenBatch,
    config: Pruning,
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
