"""Students whose weights are averaged with those of their untrained form, after the training."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from core.config.students import StudentConfig
from core.runs.student_records import VALIDATION_REQUESTS, StepRecord, StudentRecord
from core.storage.atomic_files import read_json, write_atomically, write_text
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation, find_pad_id
from students.gguf_export import read_student
from students.predictions import compute_held_out_loss
from students.replay import read_held_out_replay
from students.start_model import ADAPTER_FOLDER, ADAPTER_WEIGHTS
from students.student_folder import SETTINGS_FILE, list_result_rows
from students.torch_teacher import load_original
from students.training.steps import StartReference
from students.training.student_training import average_with_start


def write_averaged_weights(trained: Path, start: Path, share: float, out: Path) -> None:
    """Write `trained` with its weights averaged with those of its untrained form `start` to `out`, whole or not at all."""
    with write_atomically(out) as partial:
        _write_average(trained, start, share, partial)


def write_averaged_student(
    trained: Path,
    start: Path,
    choice: StepRecord,
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
        _write_average(trained, start, choice.values["share"], partial)
        model, tokenizer = read_student(partial)
        pad = find_pad_id(tokenizer)
        encoded = [encode_conversation(conversation, tokenizer, config.max_tokens) for conversation in held_out]
        used = [one for one in encoded if isinstance(one, EncodedConversation)]
        changes: dict[str, Any] = {"step_records": [*record.step_records, choice]}
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
        write_card(partial, record, averaged)
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


def write_card(student: Path, trained: StudentRecord, averaged: StudentRecord) -> None:
    """Write the averaged weights' measurements into the card of the trained ones."""
    card = student / "README.md"
    text = card.read_text(encoding="utf-8")
    before, after = list_result_rows(trained), list_result_rows(averaged)
    if trained.kl_after is not None:
        after[1] = after[1].removesuffix(" |") + " the training, before its weights were averaged |"
    after[len(before) - 1 :] = ["\n".join(after[len(before) - 1 :])]
    for old, new in zip(before, after, strict=True):
        text = text.replace(old, new)
    write_text(card, text)
