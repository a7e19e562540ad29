"""Texts as activations: the output of one layer of any Transformers model, token by token. Knows no dictionary.

Later layers are not run. The first position is not read: models park attention there, with activations of about fifty times the
median norm (Sun et al. 2024, arXiv 2402.17762).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from core.errors import RunFailed, UsageError
from plugins.features.config import EMBEDDED_MODEL
from students.start_model import TEACHER_LAYERS, start_from_layers, start_from_pretrained
from students.torch_teacher import commit_digest, teacher_digest

BATCH_TOKENS = 2_048
"""Tokens of a batch with its padding."""


class EncodedText(NamedTuple):
    """A text as tokens, without the one that is put before them."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """The characters of each token."""


class ActivationBatch(NamedTuple):
    """Activations of consecutive tokens of several texts."""

    places: list[int]
    """The places of the texts."""
    owners: torch.Tensor
    """The index into `places` of each row; of shape (tokens,)."""
    positions: torch.Tensor
    """The position of each token in its text; of shape (tokens,)."""
    activations: torch.Tensor
    """Of shape (tokens, width), in bfloat16."""


class _LayerReached(Exception):
    """Ends a forward pass after the layer that is read."""


class ActivationReader:
    """A model, and the layer that is read."""

    def __init__(self, name: str, layer: int | None = None, snapshot: Path | None = None) -> None:
        """`layer` counts from 0; by default the middle one. `snapshot` is the folder of a model of the Hub on this machine, of
        which nothing is fetched then.

        Raises:
            UsageError: if the model cannot be loaded or has no such layer.
        """
        self.name = name
        self.digest = find_model_digest(name, snapshot)
        if name == EMBEDDED_MODEL:
            start = start_from_layers(TEACHER_LAYERS)
        else:
            try:
                start = start_from_pretrained(str(snapshot or name))
            except UsageError as error:
                raise UsageError(str(error).replace("student.start", "model", 1)) from None
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = start.model.base_model.requires_grad_(False).eval()
        layers = _find_layers(model, name)
        self.layer = (len(layers) - 1) // 2 if layer is None else layer
        if self.layer >= len(layers):
            raise UsageError(f"layer: {name} has layers 0 to {len(layers) - 1}, not {self.layer}")
        del layers[self.layer + 1 :]  # frees their memory
        # Buffers stay: bfloat16 has too few digits for the frequencies of positions.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
        self.model = model.to(self.device)
        self.width = int(self.model.get_input_embeddings().weight.shape[1])  # type: ignore[operator]
        self._layer = layers[self.layer]
        self._tokenizer = start.tokenizer
        first = (start.tokenizer.bos_token_id, start.tokenizer.eos_token_id, start.tokenizer.pad_token_id)
        self._first = next((int(token) for token in first if token is not None), 0)

    def encode(self, texts: Sequence[str], most: int | None = None) -> list[EncodedText]:
        """The first `most` tokens of each text.

        Raises:
            UsageError: if the tokenizer does not report which characters a token has.
        """
        if not self._tokenizer.is_fast:
            raise UsageError(
                f"model: the tokenizer of {self.name} does not report where tokens are; use a fast tokenizer"
            )
        encoded = []
        for text in texts:
            found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids: Any = found["input_ids"]
            spans: Any = found["offset_mapping"]
            encoded.append(EncodedText(list(ids[:most]), [(int(a), int(b)) for a, b in spans[:most]]))
        return encoded

    def read(
        self, texts: Sequence[EncodedText], progress: Callable[[int], None] = lambda _tokens: None
    ) -> Iterator[ActivationBatch]:
        """The activations of all tokens, in batches of texts of similar lengths. `progress` gets the tokens read so far.

        Raises:
            RunFailed: if the model computes values that are no numbers.
        """
        order = sorted((place for place, text in enumerate(texts) if text.ids), key=lambda place: len(texts[place].ids))
        done = at = 0
        while at < len(order):
            count, longest = 0, 0
            while at + count < len(order):
                longest = len(texts[order[at + count]].ids) + 1
                if count and longest * (count + 1) > BATCH_TOKENS:
                    break
                count += 1
            places = order[at : at + count]
            at += count
            batch = self._run([texts[place].ids for place in places])
            if not torch.isfinite(batch[2]).all():
                raise RunFailed(
                    f"{self.name}: layer {self.layer} computes values that are no numbers (bfloat16); choose another layer"
                )
            done += len(batch[2])
            progress(done)
            yield ActivationBatch(places, *batch)

    @torch.inference_mode()
    def _run(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        longest = max(map(len, rows)) + 1
        ids = torch.full((len(rows), longest), self._first)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, 1 : len(row) + 1] = torch.tensor(row)
            mask[place, : len(row) + 1] = 1
        outputs: list[torch.Tensor] = []

        def stop(_module: torch.nn.Module, _inputs: object, output: Any) -> None:
            outputs.append(output[0] if isinstance(output, tuple) else output)
            raise _LayerReached

        handle = self._layer.register_forward_hook(stop)
        try:
            with suppress(_LayerReached):
                self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False)
        finally:
            handle.remove()
        mask[:, 0] = 0
        owners, positions = mask.nonzero(as_tuple=True)
        return owners, positions - 1, outputs[0][mask.bool().to(self.device)]


def find_model_digest(name: str, snapshot: Path | None = None) -> str:
    """The digest of a model's files, or of its commit. Raises UsageError if it does not exist."""
    if snapshot:
        return commit_digest(name, snapshot.name)
    try:
        return teacher_digest(name)
    except UsageError as error:
        sentence = str(error).replace("student.distillation.teacher", "model", 1).replace("student.start", "model", 1)
        raise UsageError(sentence) from None


def _find_layers(model: torch.nn.Module, name: str) -> torch.nn.ModuleList:
    """The list of the model's layers, which every architecture names in its own way."""
    count = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise UsageError(f"model: {name} has no list of {count} layers; use a model whose layers are one list")
