"""A teacher in torch: which model it is, by a hash of its files, and what it finds likely beside a student.

Knows models and tokenizers; knows nothing of losses, or of signals on disk.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from core.errors import UsageError
from core.sample import digest_of
from core.store import file_hash
from core.student_config import StudentConfig
from students.data import Batch, Encoded
from students.evaluate import predicted
from students.start import TEACHER_LAYERS, Start, from_layers, from_pretrained, teacher_path
from students.vocabulary import trimmed_from, with_tokens_of

EMBEDDED = "embedded"
FILES = ("config.json", "*.safetensors", "*.bin")
START_FILES = (
    *FILES,
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
)
"""With tokenizer and chat template: what a student is made of, and not what was found of the start since."""


class Dense(NamedTuple):
    """Of each learned token all that the teacher says: log-probabilities, and hidden states where they were asked for."""

    log_probs: torch.Tensor
    """Of shape (tokens, words)."""
    hidden: tuple[torch.Tensor, ...]
    """The output of each layer, of shape (tokens, width)."""


class TeacherBeside:
    """A teacher that runs whenever the student does."""

    def __init__(self, model: PreTrainedModel, words: int, temperature: float, *, hidden: bool = False) -> None:
        """`words` are those of the tokenizer: models may have more rows than that, for a round number."""
        self.model = model.requires_grad_(False)
        self.model.train(False)
        self._words, self._temperature, self._hidden = words, temperature, hidden

    @torch.no_grad()
    def signal(self, batch: Batch, _encoded: Sequence[Encoded]) -> Dense:
        said = predicted(self.model, batch, hidden=self._hidden)
        return Dense((said.logits[:, : self._words] / self._temperature).log_softmax(-1), said.hidden)


def load_teacher(name: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The teacher of this name, for a student with this tokenizer. If that was trimmed from the teacher's, the teacher is
    trimmed too: its probabilities are then those of the whole one, given that one of the student's tokens comes.

    Raises:
        UsageError: if it cannot be loaded, or reads other tokens than the student.
    """
    start = from_layers(TEACHER_LAYERS) if name == EMBEDDED else _named(name)
    if trimmed_from(tokenizer, start.tokenizer):
        start = with_tokens_of(start, tokenizer)
    theirs, ours = tokenizer_digest(start.tokenizer), tokenizer_digest(tokenizer)
    if theirs != ours:
        raise UsageError(
            f"student.distillation.teacher: the tokenizer of {name!r} ({len(start.tokenizer)} words) is not the student's "
            f"({len(tokenizer)} words), so their probabilities are of different tokens; use objective = 'sft' on the "
            "teacher's texts, or a start that has the teacher's tokenizer"
        )
    return start.model


def begins_as_teacher(config: StudentConfig, digest: str) -> bool:
    """Whether the student is its teacher, of this digest, weight for weight, as far as names and files tell."""
    start, teacher = config.start, config.distillation.teacher
    if start == "layers":
        return teacher == EMBEDDED and config.layers == TEACHER_LAYERS
    return start == teacher or (Path(start).is_dir() and teacher_digest(start) == digest)


def _named(name: str) -> Start:
    try:
        return from_pretrained(name)
    except UsageError as error:
        raise UsageError(str(error).replace("student.start", "student.distillation.teacher", 1)) from None


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """The same for tokenizers that give the same numbers to the same tokens."""
    return digest_of(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))


def teacher_digest(name: str) -> str:
    """Of the teacher's weights and configuration without loading them: of its files, or of its commit on the hub.

    Raises:
        UsageError: if there is no such model.
    """
    if name == EMBEDDED:
        return file_hash(teacher_path())
    folder = Path(name)
    if folder.is_dir():
        return _folder_digest(folder, FILES)
    try:
        config = cached_file(name, "config.json")
    except OSError as error:
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise UsageError(
            f"student.distillation.teacher: transformers cannot find {name!r}: {reason}; use embedded, a folder or a hub name"
        ) from None
    return digest_of([name, Path(str(config)).parent.name])


def start_digest(name: str) -> str:
    """Of what a start that is a folder is made of, which may change under its name; empty for any other start."""
    return _folder_digest(Path(name), START_FILES) if Path(name).is_dir() else ""


def _folder_digest(folder: Path, patterns: Sequence[str]) -> str:
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return digest_of([[file.name, file_hash(file)] for file in files])
