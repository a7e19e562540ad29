"""Training a student, from conversations to a folder that others load.

Knows the order of things only: what each is, stands in a module of its own. Knows nothing of runs.
"""

from collections.abc import Sequence
from pathlib import Path

from core.errors import UsageError
from core.run import SparsityRecord, StudentRecord
from core.student_config import DIVERGENCES, StudentConfig
from students.adapters import adapted, merged
from students.begin import Progress, prepared, prepared_lesson, pruned
from students.checkpoint import Progressed, remove_checkpoint, training_digest
from students.data import Conversation, Prepared, pad_id
from students.distillation import Measured
from students.endpoint import EndpointTeacher
from students.loop import train
from students.output import Training, finished, write_student
from students.processes import first, place, together
from students.sparsity import share_of_zeros
from students.start import Start, teacher_file
from students.teacher import begins_as_teacher, start_digest, teacher_digest
from students.tracking import check_trackers


@together()
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
    teacher = _checked(config, rejected)
    digest = training_digest(
        {"train": conversations, "held_out": held_out or (), "rejected": rejected},
        config,
        seed,
        start=start_digest(config.start),
        teacher=teacher,
    )
    if record := finished(out, digest):
        progress(f"student: {out} is trained already")
        return record
    start, data = prepared(conversations, held_out, rejected, config, seed, progress)
    unpruned = pruned(start, data, config.sparsity, seed, progress) if config.sparsity else None
    lesson = prepared_lesson(start, data, config, out, seed=seed, teacher=teacher, progress=progress)
    teacher_file.cache_clear()  # 150 MB that a training has no use for
    adapters = adapted(start.model, config.lora) if config.lora else None

    done = train(start, data, lesson, config, out, seed=seed, digest=digest, progress=progress)

    adapter = merged(adapters) if adapters else None
    start.model.bfloat16().float()  # type: ignore[no-untyped-call]  # the weights as they will be stored
    after = lesson.measured(start.model, data.held_out, pad_id(start.tokenizer))
    record = _record(start, data, config, done, after, unpruned)
    if first():
        write_student(out, start, Training(config, seed, digest, data, record, done.log, adapter))
        remove_checkpoint(out)
    progress(_told(record))
    return record


def _checked(config: StudentConfig, rejected: Sequence[Conversation]) -> str:
    """The teacher's digest, or nothing if none is asked. Raises UsageError for what can be known before anything is loaded."""
    if ("dpo" in config.weights) != bool(rejected):
        raise UsageError(
            "student.objective: dpo learns from pairs of answers, a better and a worse one; give a dataset with the columns "
            "prompt, chosen and rejected, or leave dpo out"
        )
    check_trackers(config)
    _, processes = place()
    if config.accumulate % processes:
        raise UsageError(
            f"student.accumulate = {config.accumulate}: {processes} processes share the batches of a step; make it a multiple of "
            "that"
        )
    if not config.asks_teacher:
        return ""
    told = config.distillation
    digest = EndpointTeacher(told).digest if told.by_endpoint else teacher_digest(told.teacher)
    nothing_else = told.signals != "dense" and config.weights.keys() <= DIVERGENCES and not config.sparsity
    if nothing_else and begins_as_teacher(config, digest):
        raise UsageError(
            f"student.start = {config.start!r}: the student begins as its own teacher, so the signals captured of that teach "
            "nothing but their rounding; choose fewer layers, another start or another teacher"
        )
    return digest


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
