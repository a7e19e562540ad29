"""A student beside what it began as and beside its teacher: the same held-out conversations, whatever the tokenizers.

Knows models and how a student's folder says what it began as; knows nothing of who else is asked what.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from core.errors import UsageError
from core.store import read_json
from core.student_config import StudentConfig
from students.data import Conversation, Encoded, encode, pad_id
from students.evaluate import held_out_loss
from students.export import read_student
from students.output import KEPT, SETTINGS
from students.start import TEACHER_LAYERS, Start, from_layers, load_start, narrowed
from students.vocabulary import with_tokens_of
from students.width import Kept

WHOLE = 2**30
"""So many tokens of a conversation cut none."""


class TextLoss(NamedTuple):
    """What a model makes of the assistant's turns in held-out conversations."""

    nats_per_token: float
    """End-of-turn tokens among them. Comparable between models with one tokenizer only."""
    bits_per_byte: float
    """The same sum for each byte of what the assistant says: comparable whatever the tokenizer."""
    conversations: int
    """Those that could be used."""


def text_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: Sequence[Conversation], max_tokens: int
) -> TextLoss | None:
    """None where no conversation can be used. One longer than `max_tokens` is left out: half of its bytes would be unread."""
    encoded = [(one, encode(one, tokenizer, WHOLE)) for one in held_out]
    used = [(one, ids) for one, ids in encoded if isinstance(ids, Encoded) and len(ids.ids) <= max_tokens]
    if not used:
        return None
    loss = held_out_loss(model, [ids for _, ids in used], pad_id(tokenizer))
    tokens = sum(sum(ids.learned) for _, ids in used)
    said = sum(len(turn.text.encode()) for one, _ in used for turn in one if turn.role == "assistant")
    return TextLoss(loss, loss * tokens / said / math.log(2), len(used))


def folder_loss(folder: Path, held_out: Sequence[Conversation], max_tokens: int) -> TextLoss | None:
    model, tokenizer = read_student(folder)
    return text_loss(model, tokenizer, held_out, max_tokens)


def embedded_teacher_loss(held_out: Sequence[Conversation], max_tokens: int) -> TextLoss | None:
    start = from_layers(TEACHER_LAYERS)
    return text_loss(start.model, start.tokenizer, held_out, max_tokens)


def write_embedded_teacher(folder: Path) -> None:
    """Write the embedded teacher to `folder`, for whoever loads models from one."""
    _write(from_layers(TEACHER_LAYERS), folder)


def write_untrained(student: Path, folder: Path) -> bool:
    """Write what the student in `student` was before training to `folder`; False where that is not known, or not there any
    more.
    """
    settings = student / SETTINGS
    if not settings.is_file():
        return False
    there = read_json(settings)
    config = StudentConfig.model_validate(there["config"])
    torch.manual_seed(there["seed"])  # new weights are drawn as they were then
    try:
        start = load_start(config)
    except UsageError:
        return False
    if config.vocabulary:
        start = with_tokens_of(start, AutoTokenizer.from_pretrained(student))
    if (student / KEPT).is_file():
        start = narrowed(start, Kept(**read_json(student / KEPT)))
    start.model.bfloat16()
    _write(start, folder)
    return True


def _write(start: Start, folder: Path) -> None:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    start.model.save_pretrained(folder)
    start.tokenizer.save_pretrained(folder)
