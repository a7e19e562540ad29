"""Training a student, from conversations to a folder that `transformers` loads.

Knows only the order of the steps; other modules implement them. Knows nothing of runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from core.config.recipe import list_differences
from core.config.students import StudentConfig
from core.errors import UsageError
from core.plugins import load_part
from core.runs.student_records import ReplayRecord, StudentRecord
from core.storage.atomic_files import read_json
from students.chat_encoding import Conversation
from students.distributed import is_main_process, process_group, rank_and_world_size
from students.embedded_teacher import open_teacher_file
from students.predictions import round_weights
from students.start_model import add_adapters, merge_adapters
from students.student_folder import SETTINGS_FILE, FinishedTraining, write_student
from students.torch_teacher import start_digest, starts_as_teacher, teacher_digest
from students.training.checkpoint import (
    TrainingProgress,
    dump_relevant_settings,
    list_trainable_parameters,
    remove_checkpoint,
    training_digest,
)
from students.training.steps import Training
from students.training.training_loop import check_trackers, run_training_loop
from students.training.training_objective import HeldOutLosses
from students.training.training_setup import (
    ProgressCallback,
    build_reference,
    prepare_objective,
    prepare_replay,
    prepare_start,
)

if TYPE_CHECKING:
    import peft


@process_group()
def train_student(
    conversations: Sequence[Conversation],
    config: StudentConfig,
    out: Path,
    *,
    seed: int,
    progress: ProgressCallback,
    held_out: Sequence[Conversation] | None = None,
    rejected: Sequence[Conversation | None] = (),
    judged: Sequence[tuple[Conversation, bool]] = (),
    siblings: Sequence[Sequence[Conversation]] = (),
    synthetic: bool = False,
) -> StudentRecord:
    """Train a student on `conversations` and write it to `out`, whole or not at all.

    Without `held_out`, `config.held_out` of the conversations are drawn with `seed` and not trained on. A second call with
    the same arguments resumes from the last checkpoint (`.NAME.checkpoint` next to `out`), to the same weights as an
    uninterrupted training; after the end, it returns the existing record. Captured signals are stored in
    `config.distillation.cache`, or in `NAME.signals` next to `out`, and remain there; replay conversations likewise in
    `config.replay.cache` or `NAME.replay.jsonl`. `rejected` has a worse answer to the
    prompt of each of `conversations`, which the objective `dpo` needs. `judged` has kept and refused answers
    with their verdicts, for `kto`, and `siblings` the rows of the same seed as each. `synthetic` is a label of the model card.

    Raises:
        UsageError: if `out` has other content, the start or the teacher cannot be used, or signals have another identity.
        RunFailed: if there is too little data, the loss is not finite, or the teacher's gradient is zero.
    """
    teacher = _check_training(config, rejected, [kept for _, kept in judged])
    digest = training_digest(
        {
            "train": conversations, "held_out": held_out or (), "rejected": rejected,
            "kept": [text for text, kept in judged if kept], "refused": [text for text, kept in judged if not kept],
        },
        config,
        seed,
        start=start_digest(config.start),
        teacher=teacher,
    )  # fmt: skip
    if record := _find_finished_student(out, digest, config, seed):
        progress(f"student: {out} is trained already")
        return record
    training = prepare_start(
        conversations, held_out, rejected, judged, config, seed, progress, out=out, digest=digest, siblings=siblings
    )
    start, data = training.start, training.data
    training.replay = prepare_replay(training)
    objective = prepare_objective(training, teacher)
    open_teacher_file.cache_clear()  # 150 MB that the training does not need
    training.adapters = adapters = add_adapters(start.model, config.lora) if config.lora else None
    training.reference = objective.reference = build_reference(training)
    near = training.measure_forgetting()
    share = 1.0 if config.average is None else config.average
    before = {}
    if share < 1 and not adapters:
        before = {name: value.detach().clone() for name, value in list_trainable_parameters(start.model).items()}
    for step in training.steps:
        step.begin(training)

    done = run_training_loop(training, objective)

    if adapters:
        _scale_adapters(adapters, share)
    elif before:
        average_with_start(start.model, before, share)
    for step in training.steps:
        step.finish(training)
    far = training.measure_forgetting()
    described = [one for step in training.steps if (one := step.describe(training, done.log))]
    adapter = merge_adapters(adapters) if adapters else None
    round_weights(start.model)
    after = objective.measure(start.model, data.held_out, training.pad)
    record = _build_student_record(training, done, after)
    record.step_records = described
    if near is not None and far is not None:
        sizes = {name: len(texts) for name, texts in training.replay._asdict().items()}
        record.replay = ReplayRecord(**sizes, divergence_before=near, divergence=far)
    if is_main_process():
        trained = [conversations[place] for place in data.places]
        write_student(
            out,
            start,
            FinishedTraining(config, seed, digest, data, record, done.log, trained, synthetic, adapter, training.steps),
        )
        remove_checkpoint(out)
    progress(_format_result(record))
    return record


@torch.no_grad()
def average_with_start(model: torch.nn.Module, start: Mapping[str, torch.Tensor], share: float) -> None:
    """Set each trainable parameter to start + `share` * (trained - start), in place (WiSE-FT, arXiv 2109.01903); a share of 1
    changes none.
    """
    for name, parameter in list_trainable_parameters(model).items():
        parameter.copy_(torch.lerp(start[name].to(parameter), parameter, share))


@torch.no_grad()
def _scale_adapters(adapters: "peft.LoraModel", share: float) -> None:
    """The same for the matrices that low-rank adapters update: their product is the difference from the start."""
    for name, parameter in list_trainable_parameters(adapters).items():
        if ".lora_B." in name:
            parameter.mul_(share)


def _find_finished_student(out: Path, digest: str, config: StudentConfig, seed: int) -> StudentRecord | None:
    """The record of the student at `out`, if the training of this `digest` made it; None where `out` is empty.

    Raises:
        UsageError: if `out` has other content, which would be replaced.
    """
    settings, other = out / SETTINGS_FILE, "is not a student of this data"
    if settings.is_file():
        recorded = read_json(settings)
        if recorded["digest"] == digest:
            return StudentRecord.model_validate(recorded["record"])
        try:
            before = dump_relevant_settings(StudentConfig.model_validate(recorded["config"]))
        except (KeyError, ValueError):  # of another version
            before = None
        now = {"seed": seed, **dump_relevant_settings(config)}
        if before and (changed := list_differences({"seed": recorded["seed"], **before}, now)):
            other = f"is a student with other settings ({'; '.join(map(str, changed))})"
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UsageError(f"{out}: exists already and {other}; remove it or choose another folder")
    return None


def _check_training(config: StudentConfig, rejected: Sequence[Conversation | None], verdicts: Sequence[bool]) -> str:
    """The teacher's digest, empty without a teacher. Raises UsageError for mistakes visible before anything is loaded."""
    pairs = sum(other is not None for other in rejected)
    if ("dpo" in config.objective_weights) != bool(pairs):
        raise UsageError(
            "student.objective: dpo learns from pairs of a better and a worse answer; give a dataset with the columns "
            "prompt, chosen and rejected, or leave dpo out"
        )
    if pairs < len(rejected) and config.objective_weights.keys() == {"dpo"}:
        raise UsageError(
            f"student.objective: {len(rejected) - pairs} conversations have no rejected counterpart, so dpo alone teaches "
            "nothing on them; add sft, as in { sft = 1.0, dpo = 0.5 }"
        )
    if "kto" in config.objective_weights and len(set(verdicts)) < 2:
        raise UsageError(
            f"student.objective: kto learns from kept and refused answers, and there are {sum(verdicts)} kept and "
            f"{verdicts.count(False)} refused ones; train on a run with both, or leave kto out"
        )
    check_trackers(config)
    _, processes = rank_and_world_size()
    if config.accumulate % processes:
        raise UsageError(
            f"student.accumulate = {config.accumulate}: {processes} processes share the batches of a step; use a multiple of "
            f"{processes}"
        )
    if not config.asks_teacher:
        return ""
    distillation = config.distillation
    endpoint = load_part("capture", "endpoint")(distillation) if distillation.uses_endpoint else None
    digest: str = endpoint.digest if endpoint else teacher_digest(distillation.teacher)
    only_captured = (
        distillation.signals != "dense"
        and config.objective_weights.keys() <= config.divergences
        and not config.changes_start
    )
    if only_captured and starts_as_teacher(config, digest):
        raise UsageError(
            f"student.start = {config.start!r}: the student starts as its own teacher, so the captured signals teach only "
            "their rounding errors; choose fewer layers, another start or another teacher"
        )
    return digest


def _build_student_record(training: Training, done: TrainingProgress, after: HeldOutLosses) -> StudentRecord:
    start, data, config = training.start, training.data, training.config
    return StudentRecord(
        start=config.start,
        parameters=start.model.num_parameters(),
        train_samples=len(data.train),
        held_out_samples=len(data.held_out),
        truncation=data.truncation,
        left_out=data.unusable_counts,
        steps=done.step,
        best_step=done.best_step if config.patience else None,
        loss_before=done.loss_before,
        loss_after=after.loss,
        kl_before=done.kl_before,
        kl_after=after.kl,
        average=config.average,
        seconds=round(done.seconds, 1),
    )


def _format_result(record: StudentRecord) -> str:
    kl = "" if record.kl_after is None else f", KL from the teacher {record.kl_before:.2f} -> {record.kl_after:.2f}"
    kl += "".join(f", {note}" for note in record.start_notes)
    best = "" if record.best_step is None else f", weights of step {record.best_step} kept"
    return (
        f"student: held-out loss {record.loss_before:.2f} -> {record.loss_after:.2f} nats per assistant token{kl} "
        f"after {record.steps} steps{best} in {record.seconds:.0f} s"
    )
