"""A student compared with its start and its teacher: held-out losses on the same conversations, comparable across tokenizers,
the divergence from the start, and tasks of lm-evaluation-harness.

Knows models and the settings in a student's folder; knows nothing of the rest of an evaluation.
"""

import math
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from core.config.students import StudentConfig
from core.errors import UsageError
from core.installation import format_install_command
from core.storage.atomic_files import count_values, read_json
from students.chat_encoding import (
    Conversation,
    EncodedConversation,
    UnusableReason,
    encode_untruncated,
    find_pad_id,
    truncate_conversation,
)
from students.distributed import select_device
from students.gguf_export import read_student
from students.known_architectures import FROM_FOLDER
from students.predictions import TokenBatch, compute_held_out_loss, find_image_reader, predict_tokens, save_model
from students.start_model import TEACHER_LAYERS, StartModel, load_start_model, start_from_layers
from students.student_folder import SETTINGS_FILE
from students.training.steps import measure_divergences
from students.vocabulary_trimming import keep_tokens_of_tokenizer, shape_start


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


DIVERGENCE_BATCH = 4
"""Conversations of a forward pass: the probabilities of 500 tokens over 49,152 words take 100 MB for each model."""


def measure_answer_divergence(start: Path, student: Path, conversations: Sequence[Conversation]) -> list[float]:
    """The KL divergence of `student` from `start` in nats, the mean over the tokens of each conversation's assistant turns.

    A conversation that cannot be encoded is left out.

    Raises:
        UsageError: if a model cannot be read.
    """
    before, tokenizer = read_student(start)
    after, _ = read_student(student)
    encoded = [encode_untruncated(conversation, tokenizer) for conversation in conversations]
    used = [one for one in encoded if isinstance(one, EncodedConversation)]

    def compute_start(batch: TokenBatch) -> torch.Tensor:
        return predict_tokens(before, batch).logits.log_softmax(-1)

    values = measure_divergences(after, compute_start, used, find_pad_id(tokenizer), DIVERGENCE_BATCH)
    return [float(tokens.mean()) for tokens in values]


HARNESS_BATCH = 8
RESAMPLES = 1000
"""For the standard errors of metrics without a formula."""


class _TaskScore(NamedTuple):
    """A model's score in a task."""

    task: str
    metric: str
    """The harness's name, with its filter if there is one (`exact_match, strict-match`)."""
    value: float
    error: float | None
    """Standard error, if the harness reports one."""
    rows: int


class EvaluationHarness:
    """Tasks by name, or by the path of a task's YAML file."""

    def __init__(self, tasks: Sequence[str]) -> None:
        """Raises UsageError where the harness is not installed, or a task does not exist."""
        if find_spec("lm_eval") is None:
            raise UsageError(
                f"--tasks: needs the extra `harness` (lm_eval is missing): run {format_install_command('harness')}"
            )
        self.names: list[str] = []
        files: list[Path] = []
        for task in tasks:
            if not task.endswith((".yaml", ".yml")):
                self.names.append(task)
                continue
            file = Path(task)
            if not file.is_file():
                raise UsageError(f"--tasks: {file}: there is no such file")
            name = re.search(r"^task:\s*(\S+)\s*$", file.read_text(encoding="utf-8"), re.MULTILINE)
            if not name:
                raise UsageError(f"--tasks: {file}: has no line `task: NAME`, so it describes no task of lm_eval")
            files.append(file)
            self.names.append(name[1].strip("'\""))

        from lm_eval.tasks import TaskManager

        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            self._manager = TaskManager(
                include_path=[str(file.parent) for file in files] or None, include_defaults=len(files) < len(tasks)
            )
        if unknown := sorted(set(self.names) - set(self._manager.all_tasks)):
            raise UsageError(
                f"--tasks: {', '.join(unknown)}: lm_eval knows no such task; `lm_eval ls tasks` lists its tasks, and a file's "
                "name ends in .yaml"
            )

    def score_model(self, folder: Path, rows: int | None) -> list[_TaskScore]:
        """Score the model in `folder` on all rows of each task, or the first `rows`. The harness's output is discarded.

        Raises:
            UsageError: if a task's data cannot be loaded.
        """
        import lm_eval

        model_options = {"pretrained": str(folder), "dtype": "float32"}
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            try:
                results = lm_eval.simple_evaluate(
                    model="hf", model_args=model_options, tasks=self.names, task_manager=self._manager,
                    device=str(select_device()),
                    batch_size=HARNESS_BATCH, limit=rows, log_samples=False, bootstrap_iters=RESAMPLES,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                reason = str(error).split("\n", 1)[0]
                raise UsageError(f"--tasks: {', '.join(self.names)} cannot be run: {reason}") from None

        found: dict[str, Any] = dict(results or {})
        scores = []
        for task, values in found.get("results", {}).items():
            used = found.get("n-samples", {}).get(task, {}).get("effective", 0)
            for key, value in values.items():
                metric, comma, filtered = key.partition(",")
                if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                    name = metric if filtered == "none" else f"{metric}, {filtered}"
                    given = values.get(f"{metric}_stderr,{filtered}")
                    deviation = given if isinstance(given, float) else None
                    scores.append(_TaskScore(task, name, float(value), deviation, used))
        return scores
