"""Held-out losses of a student, its start and its teacher on the same conversations, comparable across tokenizers.

Knows models and the settings in a student's folder; knows nothing of the rest of an evaluation.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from core.config.students import StudentConfig
from core.errors import UsageError
from core.storage.atomic_files import count_values, read_json
from students.architectures.known_architectures import FROM_FOLDER
from students.chat_encoding import (
    Conversation,
    EncodedConversation,
    UnusableReason,
    encode_untruncated,
    find_pad_id,
    truncate_conversation,
)
from students.image_reader import find_image_reader, save_model
from students.init.start_model import TEACHER_LAYERS, StartModel, load_start_model, start_from_layers
from students.init.start_shape import shape_start
from students.init.vocabulary_trimming import keep_tokens_of_tokenizer
from students.output.gguf_export import read_student
from students.output.student_folder import SETTINGS_FILE
from students.predictions import compute_held_out_loss


class TextLoss(NamedTuple):
    """A model's loss on the assistant's turns of held-out conversations."""

    nats_per_token: float | None
    """Including end-of-turn tokens. Comparable between models with the same tokenizer. None where no conversation is used."""
    bits_per_byte: float | None
    """The same sum per byte of the assistant's text: comparable across tokenizers, except that truncation at a number of
    tokens keeps different parts of a conversation.
    """
    conversations: int
    """Conversations used."""
    tokens: int
    """The assistant's tokens in these conversations."""
    truncated: int
    """Conversations longer than `max_tokens`: measured before that limit, or unused if the assistant's part is behind it."""
    left_out: dict[str, int]
    """Unused conversations by `UnusableReason`."""


def measure_text_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: Sequence[Conversation], max_tokens: int
) -> TextLoss:
    """The loss on the tokens that training with `max_tokens` sees."""
    reader = find_image_reader(model)
    images = reader.limits if reader else None
    used: list[EncodedConversation] = []
    faults: list[str] = []
    size = truncated = 0
    for conversation in held_out:
        whole = encode_untruncated(conversation, tokenizer, images)
        cut = whole if isinstance(whole, UnusableReason) else truncate_conversation(whole, max_tokens)
        truncated += isinstance(whole, EncodedConversation) and len(whole.ids) > max_tokens
        if isinstance(cut, UnusableReason):
            faults.append(cut.value)
        else:
            used.append(cut)
            if cut == whole:
                size += sum(len(turn.text.encode()) for turn in conversation if turn.role == "assistant")
            else:
                learned = [token for token, mark in zip(cut.ids, cut.learned, strict=True) if mark]
                text = str(tokenizer.decode(learned, skip_special_tokens=True, clean_up_tokenization_spaces=False))
                size += max(1, len(text.encode()))  # all tokens may be special
    if not used:
        return TextLoss(None, None, 0, 0, truncated, count_values(faults))
    loss = compute_held_out_loss(model, used, find_pad_id(tokenizer))
    tokens = sum(sum(encoded.learned) for encoded in used)
    return TextLoss(loss, loss * tokens / size / math.log(2), len(used), tokens, truncated, count_values(faults))


def measure_folder_loss(folder: Path, held_out: Sequence[Conversation], max_tokens: int) -> TextLoss:
    model, tokenizer = read_student(folder)
    return measure_text_loss(model, tokenizer, held_out, max_tokens)


def measure_embedded_teacher_loss(held_out: Sequence[Conversation], max_tokens: int) -> TextLoss:
    start = start_from_layers(TEACHER_LAYERS)
    return measure_text_loss(start.model, start.tokenizer, held_out, max_tokens)


def write_embedded_teacher(folder: Path) -> None:
    """Write the embedded teacher to `folder`, as transformers loads it."""
    _write_start(start_from_layers(TEACHER_LAYERS), folder)


def write_untrained_student(student: Path, folder: Path) -> bool:
    """Write the untrained form of `student` to `folder`; False if it is unknown or its start no longer exists."""
    settings = student / SETTINGS_FILE
    if not settings.is_file():
        return False
    recorded = read_json(settings)
    config = StudentConfig.model_validate(recorded["config"])
    torch.manual_seed(recorded["seed"])  # random weights are the same as in the training
    try:
        start = load_start_model(config)
    except UsageError:
        return False
    start = shape_start(
        start,
        config,
        lambda start, _size: keep_tokens_of_tokenizer(start, AutoTokenizer.from_pretrained(student, **FROM_FOLDER)),
    )
    for step in config.steps:
        start = step.load().rebuild(start, student)
    start.model.bfloat16()
    _write_start(start, folder)
    return True


def _write_start(start: StartModel, folder: Path) -> None:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    save_model(start.model, folder)
    start.tokenizer.save_pretrained(folder)
