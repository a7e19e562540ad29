"""Training a student, from conversations to a folder that `transformers` loads.

Knows only the order of the steps; other modules implement them. Knows nothing of runs.
"""

from collections.abc import Sequence
from pathlib import Path

from core.config.recipe import list_differences
from core.config.students import StudentConfig
from core.errors import UsageError
from core.runs.student_records import ReplayRecord, SparsityRecord, StudentRecord, TernaryRecord, WindowRecord
from core.storage.atomic_files import read_json
from students.chat_encoding import Conversation, find_pad_id
from students.distributed import is_main_process, process_group, rank_and_world_size
from students.init.adapters import add_adapters, merge_adapters
from students.init.embedded_teacher import open_teacher_file
from students.init.sparsity import compute_zero_share
from students.init.start_model import StartModel
from students.init.ternary import settle_ternary
from students.losses.training_objective import HeldOutLosses
from students.output.student_folder import SETTINGS_FILE, FinishedTraining, write_student
from students.signals.prompt_logprobs import PromptLogprobTeacher
from students.signals.torch_teacher import start_digest, starts_as_teacher, teacher_digest
from students.stored_precision import round_weights
from students.training.checkpoint import (
    FLIPS,
    TrainingProgress,
    dump_relevant_settings,
    remove_checkpoint,
    training_digest,
)
from students.training.experiment_tracking import check_trackers
from students.training.training_loop import run_training_loop
from students.training.training_setup import (
    ProgressCallback,
    build_reference,
    prepare_objective,
    prepare_replay,
    prepare_start,
    prune_start,
)
from students.training.weight_averaging import StartAverage
from students.training_data import TrainingData

LAST_SHARE = 0.1
"""Share of the steps, the last ones, over which the flips of a finished training's ternary weights are averaged."""


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
    synthetic: bool = False,
) -> StudentRecord:
    """Train a student on `conversations` and write it to `out`, whole or not at all.

    Without `held_out`, `config.held_out` of the conversations are drawn with `seed` and not trained on. A second call with
    the same arguments resumes from the last checkpoint (`.NAME.checkpoint` next to `out`), to the same weights as an
    uninterrupted training; after the end, it returns the existing record. Captured signals are stored in
    `config.distillation.cache`, or in `NAME.signals` next to `out`, and remain there; replay conversations likewise in
    `config.replay.cache` or `NAME.replay.jsonl`. `rejected` has a worse answer to the
    prompt of each of `conversations`, which the objective `dpo` needs. `synthetic` is a label of the model card.

    Raises:
        UsageError: if `out` has other content, the start or the teacher cannot be used, or signals have another identity.
        RunFailed: if there is too little data, the loss is not finite, or the teacher's gradient is zero.
    """
    teacher = _check_training(config, rejected)
    digest = training_digest(
        {"train": conversations, "held_out": held_out or (), "rejected": rejected},
        config,
        seed,
        start=start_digest(config.start),
        teacher=teacher,
    )
    if record := _find_finished_student(out, digest, config, seed):
        progress(f"student: {out} is trained already")
        return record
    start, data, windows = prepare_start(conversations, held_out, rejected, config, seed, progress)
    unpruned = None
    if config.sparsity:
        unpruned = prune_start(start, data, config.sparsity, out, seed=seed, digest=digest, progress=progress)
    replay = prepare_replay(start, data, config, out, progress)
    objective = prepare_objective(start, data, config, out, seed=seed, teacher=teacher, progress=progress)
    open_teacher_file.cache_clear()  # 150 MB that the training does not need
    adapters = add_adapters(start.model, config.lora) if config.lora else None
    objective.reference = build_reference(start, adapters, config)
    pad = find_pad_id(start.tokenizer)
    near = objective.measure_forgetting(start.model, replay.held_out, pad)
    average = StartAverage(start.model, adapters, config.average if isinstance(config.average, float) else 1.0)

    done = run_training_loop(
        start, data, objective, config, out, seed=seed, digest=digest, progress=progress, replay=replay
    )

    average.apply()
    if config.weights == "ternary":
        settle_ternary(start.model)
    far = objective.measure_forgetting(start.model, replay.held_out, pad)
    adapter = merge_adapters(adapters) if adapters else None
    round_weights(start.model)
    after = objective.measure(start.model, data.held_out, pad)
    record = _build_student_record(start, data, config, done, after, unpruned, windows)
    if near is not None and far is not None:
        sizes = {name: len(texts) for name, texts in replay._asdict().items()}
        record.replay = ReplayRecord(**sizes, divergence_before=near, divergence=far)
    if is_main_process():
        trained = [conversations[place] for place in data.places]
        write_student(
            out, start, FinishedTraining(config, seed, digest, data, record, done.log, trained, synthetic, adapter)
        )
        remove_checkpoint(out)
    progress(_format_result(record))
    return record


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


def _check_training(config: StudentConfig, rejected: Sequence[Conversation | None]) -> str:
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
    endpoint = PromptLogprobTeacher(distillation) if distillation.uses_endpoint else None
    digest = endpoint.digest if endpoint else teacher_digest(distillation.teacher)
    only_captured = (
        distillation.signals != "dense"
        and config.objective_weights.keys() <= config.divergences
        and not config.sparsity
        and config.weights == "full"
    )
    if only_captured and starts_as_teacher(config, digest):
        raise UsageError(
            f"student.start = {config.start!r}: the student starts as its own teacher, so the captured signals teach only "
            "their rounding errors; choose fewer layers, another start or another teacher"
        )
    return digest


def _build_student_record(
    start: StartModel,
    data: TrainingData,
    config: StudentConfig,
    done: TrainingProgress,
    after: HeldOutLosses,
    unpruned: float | None,
    windows: WindowRecord | None,
) -> StudentRecord:
    zeros = compute_zero_share(start.model) if config.sparsity else 0.0
    return StudentRecord(
        start=config.start,
        parameters=start.model.num_parameters(),
        train_samples=len(data.train),
        held_out_samples=len(data.held_out),
        truncation=data.truncation,
        steps=done.step,
        best_step=done.best_step if config.patience else None,
        loss_before=done.loss_before,
        loss_after=after.loss,
        kl_before=done.kl_before,
        kl_after=after.kl,
        average=config.average if isinstance(config.average, float) else None,
        windows=windows,
        ternary=_describe_ternary(start, done) if config.weights == "ternary" else None,
        sparsity=None if unpruned is None else SparsityRecord(zeros=zeros, loss_unpruned=unpruned),
        seconds=round(done.seconds, 1),
    )


def _describe_ternary(start: StartModel, done: TrainingProgress) -> TernaryRecord:
    flips = [line[FLIPS] for line in done.log]
    last = flips[-max(1, round(LAST_SHARE * len(flips))) :]
    return TernaryRecord(zeros=compute_zero_share(start.model), flips=sum(flips), last_flips=sum(last) / len(last))


def _format_result(record: StudentRecord) -> str:
    kl = "" if record.kl_after is None else f", KL from the teacher {record.kl_before:.2f} -> {record.kl_after:.2f}"
    kl += "".join(f", {note}" for note in record.start_notes)
    best = "" if record.best_step is None else f", weights of step {record.best_step} kept"
    ternary = "" if record.ternary is None else f"; {record.ternary.sentence}"
    return (
        f"student: held-out loss {record.loss_before:.2f} -> {record.loss_after:.2f} nats per assistant token{kl} "
        f"after {record.steps} steps{best} in {record.seconds:.0f} s{ternary}"
    )
