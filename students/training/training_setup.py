"""The setup of a training: the untrained student, the encoded conversations, and the objective.

Knows how these depend on each other; knows nothing of steps.
"""

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from core.config.students import DistillationConfig, StudentConfig
from core.plugins import load_part
from students.captured_signals import (
    CapturedSignals,
    CaptureFunction,
    SignalIdentity,
    build_model_capture,
    build_signal_identity,
    capture_signals,
)
from students.chat_encoding import Conversation, check_tokenizer, find_pad_id
from students.distributed import main_process_first, select_device
from students.predictions import cast_weights
from students.replay import NO_REPLAY, ReplayTexts, load_replay
from students.start_model import StartModel, load_start_model
from students.torch_teacher import TorchTeacher, load_original, load_teacher, tokenizer_digest
from students.training.steps import StartReference, Training
from students.training.training_objective import TrainingObjective, build_projections
from students.training_data import TrainingData, encode_and_split
from students.vocabulary_trimming import shape_start, trim_vocabulary

ProgressCallback = Callable[[str], None]


def prepare_start(
    conversations: Sequence[Conversation],
    held_out: Sequence[Conversation] | None,
    rejected: Sequence[Conversation | None],
    judged: Sequence[tuple[Conversation, bool]],
    config: StudentConfig,
    seed: int,
    progress: ProgressCallback,
    *,
    out: Path = Path(),
    digest: str = "",
    siblings: Sequence[Sequence[Conversation]] = (),
) -> Training:
    """Load the start, and change it as the settings and their steps say, for the training `digest` of the folder `out`."""
    began = time.monotonic()
    torch.manual_seed(seed)
    loaded = load_start_model(config)
    check_tokenizer(loaded.tokenizer)
    loaded.model.to(select_device())  # type: ignore[arg-type]

    def encode(start: StartModel) -> TrainingData:
        data = encode_and_split(conversations, held_out, start.tokenizer, config, seed, rejected, judged, siblings)
        data.check()
        return data

    data = encode(loaded)
    start = shape_start(loaded, config, lambda start, size: trim_vocabulary(start, data.train, size))
    if config.vocabulary:
        data = encode(start)
    training = Training(config, seed, out, digest, progress, start, data, [step.load() for step in config.steps])
    for step in training.steps:
        training.start = step.prepare(training.start, training)
    start = training.start
    progress(
        f"student: {start.made_from}, {start.model.num_parameters() / 1e6:.1f}M parameters; "
        f"{len(data.train)} conversations to train on, {len(data.held_out)} held out, "
        + "".join(
            f"{len(numbers)} left out ({why}; the first is conversation {numbers[0]}), "
            for why, numbers in data.unusable.items()
        )
        + f"loaded in {time.monotonic() - began:.0f} s"
    )
    if data.truncation and data.truncation.truncated:
        progress(f"student: {data.truncation.summary}")
    return training


def prepare_objective(training: Training, teacher: str) -> TrainingObjective:
    """The recipe's objectives with a running teacher, or with its signals, which are captured if they do not exist yet.

    `teacher` is the teacher's digest. Uses torch's global generator only for projections.
    """
    start, data, config, steps = training.start, training.data, training.config, training.steps
    words = len(start.tokenizer)
    if not config.asks_teacher:
        return TrainingObjective(config, None, words, torch.nn.ModuleList(), steps)
    distillation = config.distillation
    if distillation.signals == "dense":
        model = load_teacher(distillation.teacher, start.tokenizer).to(start.model.device)  # type: ignore[arg-type]
        layers = "hidden" in config.objective_weights
        projections = build_projections(start.model, model) if layers else torch.nn.ModuleList()
        projections.to(start.model.device)
        live = TorchTeacher(model, words, distillation.temperature, hidden=layers, precision=config.precision)
        return TrainingObjective(config, live, words, projections, steps)
    path = Path(distillation.cache) if distillation.cache else training.out.with_name(f"{training.out.name}.signals")
    identity = build_signal_identity(
        distillation, tokenizer=tokenizer_digest(start.tokenizer), teacher=teacher, words=words, seed=training.seed
    )
    texts = [*data.train, *data.held_out]
    with main_process_first():
        if not path.exists():
            capture_signals(
                _choose_capture(distillation, start, identity), texts, identity, path, progress=training.progress
            )
    captured = CapturedSignals(path, identity)
    captured.check(texts)
    return TrainingObjective(config, captured, words, torch.nn.ModuleList(), steps)


def prepare_replay(training: Training) -> ReplayTexts:
    """Conversations that the original model writes by itself, for the number of training conversations; none without `replay`."""
    start, config, out = training.start, training.config, training.out
    if config.replay is None:
        return NO_REPLAY
    path = Path(config.replay.cache) if config.replay.cache else out.with_name(f"{out.name}.replay.jsonl")
    original = load_original(start.model, start.tokenizer, config).to(start.model.device)  # type: ignore[arg-type]
    with main_process_first():
        return load_replay(
            build_replay_writer(original, config), start.tokenizer, config.replay, len(training.data.train), path,
            progress=training.progress,
        )  # fmt: skip


def build_replay_writer(original: PreTrainedModel, config: StudentConfig) -> PreTrainedModel:
    """The original model in the precision of the training; the one that is passed keeps its own."""
    return cast_weights(copy.deepcopy(original), torch.bfloat16) if config.precision == "bf16" else original


def build_reference(training: Training) -> StartReference | None:
    """The original model, if the training compares the student with it. The student is not trained yet."""
    start, config = training.start, training.config
    if not (config.replay or any(step.reads_start for step in config.steps)):
        return None
    original = load_original(start.model, start.tokenizer, config).to(start.model.device)  # type: ignore[arg-type]
    without_adapters = training.adapters if original is start.model else None
    return StartReference(original, without_adapters, torch.bfloat16 if config.precision == "bf16" else torch.float32)


def _choose_capture(distillation: DistillationConfig, start: StartModel, identity: SignalIdentity) -> CaptureFunction:
    if distillation.uses_endpoint:
        teacher = load_part("capture", "endpoint")(distillation)
        return lambda texts: teacher.capture_texts(texts, identity, start.tokenizer)
    model = load_teacher(distillation.teacher, start.tokenizer).to(start.model.device)  # type: ignore[arg-type]
    return build_model_capture(model, identity, find_pad_id(start.tokenizer))
