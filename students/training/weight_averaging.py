"""Averages of a student's weights with those of its start (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).

An average keeps more of what the start could do than the trained weights (for alignment: Lin et al. 2024, arXiv 2309.06256).
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.utils import logging

from core.config.students import StudentConfig
from core.runs.student_records import VALIDATION_REQUESTS, AverageRecord, StudentRecord
from core.storage.atomic_files import read_json, write_atomically
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation, find_pad_id
from students.gguf_export import read_student
from students.init.adapters import ADAPTER_FOLDER, ADAPTER_WEIGHTS
from students.predictions import compute_held_out_loss
from students.signals.replay import read_held_out_replay
from students.signals.torch_teacher import load_original
from students.student_folder import SETTINGS_FILE, write_card_average
from students.training.checkpoint import list_trainable_parameters
from students.training.training_objective import StartReference

if TYPE_CHECKING:
    import peft


def _copy_parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
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


class StartAverage:
    """The average of the weights after a training with those before it."""

    def __init__(self, model: PreTrainedModel, adapters: "peft.LoraModel | None", share: float) -> None:
        """Before the training. A copy of the weights is kept if `share` is below 1 and no adapters are trained in their place."""
        self._model, self._adapters, self._share = model, adapters, share
        self._before = _copy_parameters(model) if share < 1 and not adapters else {}

    def apply(self) -> None:
        """After the training, in place."""
        if self._adapters:
            scale_adapters(self._adapters, self._share)
        elif self._before:
            average_with_start(self._model, self._before, self._share)


def write_averaged_weights(trained: Path, start: Path, share: float, out: Path) -> None:
    """Write `trained` with its weights averaged with those of its untrained form `start` to `out`, whole or not at all."""
    with write_atomically(out) as partial:
        _write_average(trained, start, share, partial)


def write_averaged_student(
    trained: Path,
    start: Path,
    choice: AverageRecord,
    out: Path,
    held_out: Sequence[Conversation],
    requests: Sequence[str],
) -> StudentRecord:
    """The same with the chosen share, with `choice` and the losses of the averaged weights in its record and card. `requests`
    are those of the choice, which no later evaluation may ask.
    """
    settings = read_json(trained / SETTINGS_FILE)
    config, record = StudentConfig.model_validate(settings["config"]), StudentRecord.model_validate(settings["record"])
    with write_atomically(out) as partial:
        _write_average(trained, start, choice.share, partial)
        model, tokenizer = read_student(partial)
        pad = find_pad_id(tokenizer)
        encoded = [encode_conversation(conversation, tokenizer, config.max_tokens) for conversation in held_out]
        used = [one for one in encoded if isinstance(one, EncodedConversation)]
        changes: dict[str, Any] = {"average": choice.share, "average_choice": choice}
        if used:
            changes["loss_after"] = compute_held_out_loss(model, used, pad)
        if record.replay and config.replay:
            path = Path(config.replay.cache or trained.with_name(f"{trained.name}.replay.jsonl"))
            texts = read_held_out_replay(path, record.replay.held_out)
            original = load_original(read_student(start)[0], tokenizer, config)
            reference = StartReference(original, None, torch.float32)
            divergence = reference.measure_divergence(model, texts, pad)
            changes["replay"] = record.replay.model_copy(update={"divergence": divergence})
        averaged = record.model_copy(update=changes)
        settings["record"] = averaged.model_dump(mode="json")
        (partial / SETTINGS_FILE).write_text(
            json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (partial / VALIDATION_REQUESTS).write_text(json.dumps(list(requests), ensure_ascii=False), encoding="utf-8")
        write_card_average(partial, record, averaged)
    return averaged


def _write_average(trained: Path, start: Path, share: float, out: Path) -> None:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model, _ = read_student(trained)
    other, _ = read_student(start)
    zeros = {name: parameter == 0 for name, parameter in model.named_parameters()}
    average_with_start(model, dict(other.named_parameters()), share)
    if any(step["type"] == "sparsity" for step in read_json(trained / SETTINGS_FILE)["config"]["steps"]):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter[zeros[name]] = 0
    shutil.copytree(trained, out, ignore=shutil.ignore_patterns("*.gguf", "*.safetensors*"))
    model.bfloat16().save_pretrained(out)
    adapter = trained / ADAPTER_FOLDER / ADAPTER_WEIGHTS
    if adapter.is_file():
        scaled = {name: tensor * share if ".lora_B." in name else tensor for name, tensor in load_file(adapter).items()}
        save_file(scaled, out / ADAPTER_FOLDER / ADAPTER_WEIGHTS, {"format": "pt"})
