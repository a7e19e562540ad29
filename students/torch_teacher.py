"""A teacher in torch: its identity by a hash of its files, and its live token probabilities.

Knows models and tokenizers; knows nothing of losses or signals on disk.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from core.config.students import StudentConfig
from core.errors import UsageError
from core.sample import json_digest
from core.storage.atomic_files import hash_file
from students.chat_encoding import EncodedConversation
from students.embedded_teacher import find_teacher_file
from students.predictions import TokenBatch, predict_tokens
from students.start_model import TEACHER_LAYERS, start_from_layers, start_from_pretrained
from students.vocabulary_trimming import is_trimmed_from, keep_tokens_of_tokenizer

EMBEDDED_KEYWORD = "embedded"
MODEL_FILES = ("config.json", "*.safetensors", "*.bin")
START_FILES = (
    *MODEL_FILES,
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
)
"""Model files with tokenizer and chat template: what a student is made from, without evaluations added later."""


class DenseSignal(NamedTuple):
    """The teacher's logits of all words for each learned token, with hidden states if requested."""

    logits: torch.Tensor
    """Of shape (tokens, words)."""
    temperature: float
    hidden: tuple[torch.Tensor, ...]
    """The output of each layer, of shape (tokens, width)."""

    @property
    def log_probs(self) -> torch.Tensor:
        """In float32, of shape (tokens, words)."""
        return (self.logits.float() / self.temperature).log_softmax(-1)


class TorchTeacher:
    """A teacher that runs at every training step."""

    def __init__(
        self,
        model: PreTrainedModel,
        words: int,
        temperature: float,
        *,
        hidden: bool = False,
        precision: Literal["bf16", "float32"] = "float32",
    ) -> None:
        """`words` is the tokenizer's size: models may have more rows, rounded up. `bf16` is the precision of matrix products."""
        self.model = model.requires_grad_(False)
        self.model.train(False)
        self._words, self._temperature, self._hidden, self._rounds = words, temperature, hidden, precision == "bf16"
        for module in model.modules() if self._rounds else ():
            if isinstance(module, nn.Linear):  # as each pass would do again; a tied embedding keeps its precision
                module.weight = nn.Parameter(module.weight.bfloat16(), requires_grad=False)

    @torch.no_grad()
    def get_signal(self, batch: TokenBatch, _encoded: Sequence[EncodedConversation]) -> DenseSignal:
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self._rounds):
            predictions = predict_tokens(self.model, batch, hidden=self._hidden)
        return DenseSignal(predictions.raw[:, : self._words], self._temperature, predictions.hidden)


def load_teacher(name: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The teacher of this name, for a student with this tokenizer.

    If the tokenizer was trimmed from the teacher's, the teacher is trimmed too: its probabilities are then conditional on
    the student's vocabulary.

    Raises:
        UsageError: if the teacher cannot be loaded, or has another tokenizer than the student.
    """
    if name == EMBEDDED_KEYWORD:
        start = start_from_layers(TEACHER_LAYERS)
    else:
        try:
            start = start_from_pretrained(name)
        except UsageError as error:
            raise UsageError(str(error).replace("student.start", "student.distillation.teacher", 1)) from None
    own = tokenizer.get_vocab()
    differs = start.tokenizer.get_vocab() != own
    if differs and is_trimmed_from(tokenizer, start.tokenizer):
        start = keep_tokens_of_tokenizer(start, tokenizer)
        differs = start.tokenizer.get_vocab() != own
    if differs:
        raise UsageError(
            f"student.distillation.teacher: the tokenizer of {name!r} ({len(start.tokenizer)} words) is not the student's "
            f"({len(tokenizer)} words), so their probabilities are of different tokens; use objective = 'sft' on the "
            "teacher's texts, or a start with the teacher's tokenizer"
        )
    return start.model


def load_original(start: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: StudentConfig) -> PreTrainedModel:
    """The model whose abilities a student is to keep: its `start`; if that is a part of the embedded teacher, the whole teacher,
    in the student's vocabulary. If a step changes its form, the start as it was before.
    """
    if config.start == "layers":
        is_part = config.layers < TEACHER_LAYERS or config.changes_start
        return load_teacher(EMBEDDED_KEYWORD, tokenizer) if is_part else start
    return load_teacher(config.start, tokenizer) if any(step.changes_form for step in config.steps) else start


def starts_as_teacher(config: StudentConfig, digest: str) -> bool:
    """Whether the student starts with exactly its teacher's weights, judged by names and by the teacher's `digest`."""
    start, teacher = config.start, config.distillation.teacher
    if config.changes_start:
        return False
    if start == "layers":
        return teacher == EMBEDDED_KEYWORD and config.layers == TEACHER_LAYERS
    return start == teacher or (Path(start).is_dir() and teacher_digest(start) == digest)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Equal for tokenizers with the same tokens under the same ids."""
    return json_digest(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))


def teacher_digest(name: str) -> str:
    """The digest of the teacher's files, or of its commit on the hub; nothing is loaded.

    Raises:
        UsageError: if the model does not exist.
    """
    if name == EMBEDDED_KEYWORD:
        return hash_file(find_teacher_file())
    folder = Path(name)
    if folder.is_dir():
        return _folder_digest(folder, MODEL_FILES)
    try:
        config = cached_file(name, "config.json")
    except OSError as error:
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise UsageError(
            f"student.distillation.teacher: transformers cannot find {name!r}: {reason}; use embedded, a folder or a hub name"
        ) from None
    return commit_digest(name, Path(str(config)).parent.name)


def commit_digest(name: str, commit: str) -> str:
    """Of a model of the Hub."""
    return json_digest([name, commit])


def start_digest(name: str) -> str:
    """The digest of a start's folder, whose content may change under the same name; empty for any other start."""
    return _folder_digest(Path(name), START_FILES) if Path(name).is_dir() else ""


def _folder_digest(folder: Path, patterns: Sequence[str]) -> str:
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return json_digest([[file.name, hash_file(file)] for file in files])
