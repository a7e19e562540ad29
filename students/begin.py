"""What a training begins with: the student before it, the conversations in its tokens, and what it learns from them.

Knows how these are made of each other; knows nothing of steps.
"""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from core.errors import UsageError
from core.student_config import DistillationConfig, SparsityConfig, StudentConfig
from students.data import Conversation, Encoded, Prepared, batched, check_tokenizer, pad_id, prepare
from students.distillation import Lesson, projections
from students.endpoint import EndpointTeacher
from students.evaluate import held_out_loss, keeps_apart
from students.processes import device, one_at_first
from students.signals import Captured, Identity, Tell, capture, identity, told_by
from students.sparsity import hold, prune, share_of_zeros
from students.start import Start, load_start, narrowed
from students.teacher import TeacherBeside, load_teacher, tokenizer_digest
from students.vocabulary import trimmed
from students.width import most_active

Progress = Callable[[str], None]

CALIBRATION = 64
"""Conversations on which the activity of a wider start is measured, all at once; Minitron takes 1,024 texts."""


def prepared(
    conversations: Sequence[Conversation],
    held_out: Sequence[Conversation] | None,
    rejected: Sequence[Conversation],
    config: StudentConfig,
    seed: int,
    progress: Progress,
) -> tuple[Start, Prepared]:
    """The student before training, and the conversations in its tokens."""
    began = time.monotonic()
    torch.manual_seed(seed)
    start = load_start(config)
    check_tokenizer(start.tokenizer)
    data = prepare(conversations, held_out, start.tokenizer, config, seed, rejected)
    if config.vocabulary:
        start = trimmed(start, data.train, config.vocabulary)
        data = prepare(conversations, held_out, start.tokenizer, config, seed, rejected)
    start.model.to(device())  # type: ignore[arg-type]
    if config.start == "width":
        shown = batched(calibration(data, CALIBRATION, seed), pad_id(start.tokenizer))
        start = narrowed(start, most_active(start.model, shown, config.hidden_size))  # type: ignore[arg-type]
    if config.packing:
        check_packing(start.model, data.train, pad_id(start.tokenizer), "student.start")
    progress(
        f"student: {start.made_from}, {start.model.num_parameters() / 1e6:.1f}M parameters; "
        f"{len(data.train)} conversations to learn, {len(data.held_out)} held out, "
        + "".join(f"{count} left out ({why}), " for why, count in data.unusable.items())
        + f"loaded in {time.monotonic() - began:.0f} s"
    )
    return start, data


def calibration(data: Prepared, count: int, seed: int) -> list[Encoded]:
    """Conversations of the training on which a start is measured."""
    return random.Random(f"calibration {seed}").sample(data.train, min(count, len(data.train)))


def pruned(start: Start, data: Prepared, config: SparsityConfig, seed: int, progress: Progress) -> float:
    """Set weights of the start to zero, in place and for good. Returns its held-out loss before."""
    pad = pad_id(start.tokenizer)
    before = held_out_loss(start.model, data.held_out, pad)
    prune(start.model, batched(calibration(data, config.conversations, seed), pad), config)
    hold(start.model)
    after = held_out_loss(start.model, data.held_out, pad)
    progress(
        f"student: {share_of_zeros(start.model):.1%} of the weights in its layers set to zero by {config.method}, "
        f"held-out loss {before:.2f} -> {after:.2f}"
    )
    return before


def check_packing(model: PreTrainedModel, data: Sequence[Encoded], pad: int, key: str) -> None:
    """Raises UsageError if conversations in one row are not kept apart by `model`, which `key` of the recipe names."""
    shortest = sorted(data, key=lambda one: len(one.ids))[:2]
    if not keeps_apart(model, shortest, pad):
        raise UsageError(
            f"{key}: a {type(model).__name__} does not keep the conversations of one row apart; use packing = false"
        )


def prepared_lesson(
    start: Start, data: Prepared, config: StudentConfig, out: Path, *, seed: int, teacher: str, progress: Progress
) -> Lesson:
    """The recipe's objectives with the teacher beside the student, or with its signals, captured if they are not there yet.

    `teacher` is the teacher's digest. Draws nothing from torch's global generator, but for projections.
    """
    words = len(start.tokenizer)
    if not config.asks_teacher:
        return Lesson(config, None, words, torch.nn.ModuleList())
    wanted = config.distillation
    if wanted.signals == "dense":
        model = load_teacher(wanted.teacher, start.tokenizer).to(start.model.device)  # type: ignore[arg-type]
        if config.packing:
            check_packing(model, data.train, pad_id(start.tokenizer), "student.distillation.teacher")
        layers = "hidden" in config.weights
        learned_along = projections(start.model, model) if layers else torch.nn.ModuleList()
        learned_along.to(start.model.device)
        return Lesson(config, TeacherBeside(model, words, wanted.temperature, hidden=layers), words, learned_along)
    path = Path(wanted.cache) if wanted.cache else out.with_name(f"{out.name}.signals")
    is_of = identity(wanted, tokenizer=tokenizer_digest(start.tokenizer), teacher=teacher, words=words, seed=seed)
    texts = [*data.train, *data.held_out]
    with one_at_first():
        if not path.exists():
            capture(_tell(wanted, start, is_of), texts, is_of, path, progress=progress)
    captured = Captured(path, is_of)
    captured.check(texts)
    return Lesson(config, captured, words, torch.nn.ModuleList())


def _tell(wanted: DistillationConfig, start: Start, is_of: Identity) -> Tell:
    if wanted.by_endpoint:
        teacher = EndpointTeacher(wanted)
        return lambda texts: teacher.tell(texts, is_of, start.tokenizer)
    model = load_teacher(wanted.teacher, start.tokenizer).to(start.model.device)  # type: ignore[arg-type]
    return told_by(model, is_of, pad_id(start.tokenizer))
