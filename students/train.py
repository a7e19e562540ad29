"""Training a student, from conversations to a folder that others load.

Knows the order of things only: what each is, stands in a module of its own. Knows nothing of runs.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from core.errors import UsageError
from core.recipe import SparsityConfig, StudentConfig
from core.run import SparsityRecord, StudentRecord
from students.adapters import adapted, merged
from students.checkpoint import Progressed, remove_checkpoint, training_digest
from students.data import Conversation, Encoded, Prepared, batched, check_tokenizer, pad_id, prepare
from students.distillation import Lesson, Measured, projections
from students.evaluate import held_out_loss, keeps_apart
from students.loop import Progress, train
from students.output import Training, finished, write_student
from students.signals import Captured, capture, identity
from students.sparsity import hold, prune, share_of_zeros
from students.start import Start, load_start, narrowed
from students.teacher import TeacherBeside, load_teacher, teacher_digest, tokenizer_digest
from students.vocabulary import trimmed
from students.width import most_active

CALIBRATION = 64
"""Conversations on which the activity of a wider start is measured, all at once; Minitron takes 1,024 texts."""


def distill(
    conversations: Sequence[Conversation],
    config: StudentConfig,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    held_out: Sequence[Conversation] | None = None,
    rejected: Sequence[Conversation] = (),
) -> StudentRecord:
    """Train a student on `conversations` and write it to `out`, whole or not at all.

    Without `held_out`, `config.held_out` of the conversations are drawn for it by `seed` and not trained on. Called
    again with the same arguments it goes on from its last checkpoint (`.NAME.checkpoint` beside `out`), to the same
    weights as an undisturbed training; once finished, it returns the record that is there. Signals that are captured lie
    in `config.distillation.cache`, or in `NAME.signals` beside `out`, and stay there. `rejected` holds for each of
    `conversations` a worse one to the same prompt, which the objective `dpo` needs.

    Raises:
        UsageError: if `out` holds anything else, the start or the teacher cannot be used, or signals are of something else.
        RunFailed: if there is too little to train on, the loss stops being a number, or the teacher teaches nothing.
    """
    teacher = _checked_teacher(config, rejected)
    digest = training_digest(
        {"train": conversations, "held_out": held_out or (), "rejected": rejected}, config, seed, teacher
    )
    if record := finished(out, digest):
        progress(f"student: {out} is trained already")
        return record
    start, data = prepared(conversations, held_out, rejected, config, seed, progress)
    unpruned = pruned(start, data, config.sparsity, seed, progress) if config.sparsity else None
    lesson = prepared_lesson(start, data, config, out, seed=seed, teacher=teacher, progress=progress)
    adapters = adapted(start.model, config.lora) if config.lora else None

    done = train(start, data, lesson, config, out, seed=seed, digest=digest, progress=progress)

    adapter = merged(adapters) if adapters else None
    start.model.bfloat16().float()  # type: ignore[no-untyped-call]  # the weights as they will be stored
    after = lesson.measured(start.model, data.held_out, pad_id(start.tokenizer))
    record = _record(start, data, config, done, after, unpruned)
    write_student(out, start, Training(config, seed, digest, data, record, done.log, adapter))
    remove_checkpoint(out)
    progress(_told(record))
    return record


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


def _checked_teacher(config: StudentConfig, rejected: Sequence[Conversation]) -> str:
    """The teacher's digest, or nothing if none is asked."""
    if ("dpo" in config.weights) != bool(rejected):
        raise UsageError(
            "student.objective: dpo learns from pairs of answers, a better and a worse one; give a dataset with the columns "
            "prompt, chosen and rejected, or leave dpo out"
        )
    return teacher_digest(config.distillation.teacher) if config.asks_teacher else ""


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
        return Lesson(config, TeacherBeside(model, words, wanted.temperature, hidden=layers), words, learned_along)
    path = Path(wanted.cache) if wanted.cache else out.with_name(f"{out.name}.signals")
    is_of = identity(wanted, tokenizer=tokenizer_digest(start.tokenizer), teacher=teacher, words=words, seed=seed)
    texts = [*data.train, *data.held_out]
    if not path.exists():
        model = load_teacher(wanted.teacher, start.tokenizer)
        capture(model, texts, is_of, path, pad=pad_id(start.tokenizer), progress=progress)
    captured = Captured(path, is_of)
    captured.check(texts)
    return Lesson(config, captured, words, torch.nn.ModuleList())


def _record(
    start: Start, data: Prepared, config: StudentConfig, done: Progressed, after: Measured, unpruned: float | None
) -> StudentRecord:
    zeros = share_of_zeros(start.model) if config.sparsity else 0.0
    return StudentRecord(
        start=config.start,
        parameters=start.model.num_parameters(),
        train_samples=len(data.train),
        held_out_samples=len(data.held_out),
        steps=done.step,
        best_step=done.best_step if config.patience else None,
        loss_before=done.loss_before,
        loss_after=after.loss,
        kl_before=done.kl_before,
        kl_after=after.kl,
        sparsity=None if unpruned is None else SparsityRecord(zeros=zeros, loss_unpruned=unpruned),
        seconds=round(done.seconds, 1),
    )


def _told(record: StudentRecord) -> str:
    kl = "" if record.kl_after is None else f", KL from the teacher {record.kl_before:.2f} -> {record.kl_after:.2f}"
    best = "" if record.best_step is None else f", those of step {record.best_step} kept"
    return (
        f"student: held-out loss {record.loss_before:.2f} -> {record.loss_after:.2f} nats per assistant token{kl} "
        f"after {record.steps} steps{best} in {record.seconds:.0f} s"
    )
