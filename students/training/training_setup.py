"""The setup of a training: the untrained student, the encoded conversations, and the objective.

Knows how these depend on each other; knows nothing of steps.
"""

import copy
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.config.students import AttentionConfig, DistillationConfig, StudentConfig
from core.errors import UsageError
from core.runs.student_records import WindowRecord
from students.chat_encoding import Conversation, EncodedConversation, check_tokenizer, find_pad_id
from students.distributed import main_process_first, select_device
from students.init.sparsity import compute_zero_share, freeze_zeros, prune_weights
from students.init.start_model import StartModel, load_start_model
from students.init.start_shape import shape_start
from students.init.vocabulary_trimming import trim_vocabulary
from students.init.width_pruning import KeptParts, choose_most_active
from students.init.windows import count_windowed_layers
from students.losses.start_reference import StartReference
from students.losses.training_objective import TrainingObjective, build_projections
from students.predictions import compute_held_out_loss, separates_packed_rows
from students.signals.captured_signals import (
    CapturedSignals,
    CaptureFunction,
    SignalIdentity,
    build_model_capture,
    build_signal_identity,
    capture_signals,
)
from students.signals.prompt_logprobs import PromptLogprobTeacher
from students.signals.replay import NO_REPLAY, ReplayTexts, load_replay
from students.signals.torch_teacher import TorchTeacher, load_original, load_teacher, tokenizer_digest
from students.stored_precision import cast_weights
from students.token_batches import build_batch
from students.training.fitted_start import fit_start_once
from students.training.steps import Training
from students.training_data import TrainingData, encode_and_split

if TYPE_CHECKING:
    pass

ProgressCallback = Callable[[str], None]

CALIBRATION_CONVERSATIONS = 64
"""Conversations on which the activity of a wider start is measured, in one batch; Minitron uses 1,024 texts."""


class ChoicesByData:
    """What the training conversations choose of a start. `data` are the conversations in its tokens."""

    def __init__(
        self, encode: Callable[[PreTrainedTokenizerBase], TrainingData], config: StudentConfig, seed: int
    ) -> None:
        self._encode, self._config, self._seed = encode, config, seed
        self.data: TrainingData
        self.full_loss = 0.0
        """The held-out loss with full attention, if the start gets windows."""

    def read(self, start: StartModel) -> None:
        self.data = self._encode(start.tokenizer)

    def trim(self, start: StartModel) -> StartModel:
        assert self._config.vocabulary
        start = trim_vocabulary(start, self.data.train, self._config.vocabulary)
        self.read(start)
        return start

    def choose_parts(self, start: StartModel) -> KeptParts:
        conversations = sample_calibration(self.data, CALIBRATION_CONVERSATIONS, self._seed)
        batch = build_batch(conversations, find_pad_id(start.tokenizer))
        return choose_most_active(start.model, batch, self._config.hidden_size)  # type: ignore[arg-type]

    def see_full_attention(self, start: StartModel) -> None:
        self.full_loss = compute_held_out_loss(start.model, self.data.held_out, find_pad_id(start.tokenizer))


def prepare_start(
    conversations: Sequence[Conversation],
    held_out: Sequence[Conversation] | None,
    rejected: Sequence[Conversation | None],
    config: StudentConfig,
    seed: int,
    progress: ProgressCallback,
    *,
    out: Path = Path(),
    digest: str = "",
) -> Training:
    """Load the start, and change it as the settings and their steps say, for the training `digest` of the folder `out`."""
    began = time.monotonic()
    torch.manual_seed(seed)
    loaded = load_start_model(config)
    check_tokenizer(loaded.tokenizer)
    loaded.model.to(select_device())  # type: ignore[arg-type]
    choices = ChoicesByData(
        lambda tokenizer: encode_and_split(conversations, held_out, tokenizer, config, seed, rejected), config, seed
    )
    choices.read(loaded)
    start = shape_start(loaded, config, choices)
    data = choices.data
    training = Training(config, seed, out, digest, progress, start, data, [step.load() for step in config.steps])
    for step in training.steps:
        training.start = step.prepare(training.start, training)
    start = training.start
    if config.packing:
        key = "student.attention" if config.attention else "student.start"
        check_packing(start.model, data.train, find_pad_id(start.tokenizer), key)
    progress(
        f"student: {start.made_from}, {start.model.num_parameters() / 1e6:.1f}M parameters; "
        f"{len(data.train)} conversations to train on, {len(data.held_out)} held out, "
        + "".join(f"{count} left out ({why}), " for why, count in data.unusable.items())
        + f"loaded in {time.monotonic() - began:.0f} s"
    )
    if data.truncation and data.truncation.truncated:
        progress(f"student: {data.truncation.summary}")
    if config.attention:
        training.windows = record_windows(start, data, config.attention, choices.full_loss, progress)
    return training


def sample_calibration(data: TrainingData, count: int, seed: int) -> list[EncodedConversation]:
    """Training conversations on which a start is measured."""
    return random.Random(f"calibration {seed}").sample(data.train, min(count, len(data.train)))


def record_windows(
    start: StartModel, data: TrainingData, attention: AttentionConfig, full: float, progress: ProgressCallback
) -> WindowRecord:
    """The sliding windows of the start, and what they cost before training; `full` is the held-out loss without them."""
    longer = sum(len(conversation.ids) > attention.window for conversation in data.train)
    record = WindowRecord(
        window=attention.window,
        windowed_layers=count_windowed_layers(start.model),
        layers=start.model.config.num_hidden_layers,
        longer=longer,
        loss_full=full,
    )
    before = compute_held_out_loss(start.model, data.held_out, find_pad_id(start.tokenizer))
    progress(
        f"student: {record.form}; {longer} of {len(data.train)} conversations are longer; held-out loss {full:.2f} -> "
        f"{before:.2f}"
    )
    if not longer:
        progress(
            f"student: attention.window = {attention.window}: no training conversation is longer, so the windows change nothing "
            "in the training; lower the window, or train on longer conversations"
        )
    if record.windowed_layers == record.layers:
        progress(
            f"student: attention.full_every = {attention.full_every}: the student has {record.layers} layers, so none attends to "
            "all tokens, and what an earlier part of the input says cannot be looked up"
        )
    return record


def prune_start(training: Training) -> float | None:
    """Set weights of the start to zero permanently, in place. Returns the held-out loss before; None without `sparsity`."""
    start, data, config, pad = training.start, training.data, training.config.sparsity, training.pad
    if config is None:
        return None
    before = compute_held_out_loss(start.model, data.held_out, pad)
    batch = build_batch(sample_calibration(data, config.conversations, training.seed), pad)
    if config.reconstruct:
        fit_start_once(start, batch, config, training.out, training.digest, training.progress)
    else:
        prune_weights(start.model, batch, config)
    freeze_zeros(start.model)
    after = compute_held_out_loss(start.model, data.held_out, pad)
    training.progress(
        f"student: {compute_zero_share(start.model):.1%} of the weights in its layers set to zero by {config.method}, "
        f"held-out loss {before:.2f} -> {after:.2f}"
    )
    return before


def check_packing(model: PreTrainedModel, data: Sequence[EncodedConversation], pad: int, key: str) -> None:
    """Raises UsageError if `model`, which the recipe's `key` names, does not separate the conversations of a row."""
    shortest = sorted(data, key=lambda conversation: len(conversation.ids))[:2]
    if not separates_packed_rows(model, shortest, pad):
        raise UsageError(
            f"{key}: a {type(model).__name__} does not separate the conversations of one row; use packing = false"
        )


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
        if config.packing:
            check_packing(model, data.train, find_pad_id(start.tokenizer), "student.distillation.teacher")
        layers = "hidden" in config.objective_weights
        projections = build_projections(start.model, model) if layers else torch.nn.ModuleList()
        projections.to(start.model.device)
        return TrainingObjective(
            config, TorchTeacher(model, words, distillation.temperature, hidden=layers), words, projections, steps
        )
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


def build_replay_writer(original: "PreTrainedModel", config: StudentConfig) -> "PreTrainedModel":
    """The original model in the precision of the training; the one that is passed keeps its own."""
    return cast_weights(copy.deepcopy(original), torch.bfloat16) if config.precision == "bf16" else original


def build_reference(training: Training) -> StartReference | None:
    """The original model, if the training compares the student with it. The student is not trained yet."""
    start, config = training.start, training.config
    if not (config.replay or config.start_kl):
        return None
    original = load_original(start.model, start.tokenizer, config).to(start.model.device)  # type: ignore[arg-type]
    without_adapters = training.adapters if original is start.model else None
    return StartReference(original, without_adapters, torch.bfloat16 if config.precision == "bf16" else torch.float32)


def _choose_capture(distillation: DistillationConfig, start: StartModel, identity: SignalIdentity) -> CaptureFunction:
    if distillation.uses_endpoint:
        teacher = PromptLogprobTeacher(distillation)
        return lambda texts: teacher.capture_texts(texts, identity, start.tokenizer)
    model = load_teacher(distillation.teacher, start.tokenizer).to(start.model.device)  # type: ignore[arg-type]
    return build_model_capture(model, identity, find_pad_id(start.tokenizer))
