"""Batches of encoded conversations, and a model's predictions of the assistant's tokens in them and its loss on them.

Knows models, with or without a reader of images; knows nothing of training or of the conversations' origin.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from core.plugins import load_part
from core.shared_options import EMBEDDER_FILE
from core.weights.gguf_files import ImageLimits
from students.chat_encoding import EncodedConversation, EncodedImage

IGNORED_LABEL = -100
"""The label of a token that is not learned; torch's cross-entropy ignores it by default."""


class TokenBatch(NamedTuple):
    """Tensors of shape (rows, longest). A row is one conversation, or several in sequence if packed."""

    ids: torch.Tensor
    labels: torch.Tensor
    """Aligned with their tokens: the loss does the shift. The first token of a conversation is never learned."""
    owner: torch.Tensor
    """The index of each token's conversation; -1 for padding."""
    attention: torch.Tensor | None
    """1 for tokens, 0 for padding; None if packed."""
    positions: torch.Tensor | None
    """If packed, the position of each token in its conversation. Where positions restart and there is no mask,
    transformers lets no conversation attend to another."""
    images: tuple[tuple[int, EncodedImage], ...] = ()
    """Each with its row. The tokens of an image attend to each other in both directions."""

    def to_device(self, device: torch.device) -> "TokenBatch":
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in self._asdict().items() if isinstance(value, torch.Tensor)
        }
        return self._replace(**moved)

    @property
    def layout(self) -> dict[str, torch.Tensor]:
        """The model's inputs besides the tokens: `attention_mask` or `position_ids`."""
        layout = {"attention_mask": self.attention, "position_ids": self.positions}
        return {name: tensor for name, tensor in layout.items() if tensor is not None}


def build_batch(encoded: Sequence[EncodedConversation], pad: int, *, packed_to: int = 0) -> TokenBatch:
    """One conversation per row, or with `packed_to` as many as fit in that number of tokens; a longer one gets its own row.

    Padded on the right to the longest row; padding is neither attended to nor learned.
    """
    sizes = [len(conversation.ids) for conversation in encoded]
    rows = pack_rows(sizes, packed_to) if packed_to else [[place] for place in range(len(sizes))]
    longest = max(sum(sizes[place] for place in row) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    labels, owner, positions = torch.full_like(ids, IGNORED_LABEL), torch.full_like(ids, -1), torch.zeros_like(ids)
    for index, row in enumerate(rows):
        begin = 0
        for place in row:
            span = slice(begin, begin := begin + sizes[place])
            ids[index, span] = torch.tensor(encoded[place].ids)
            labels[index, span] = ids[index, span].where(torch.tensor(encoded[place].learned), IGNORED_LABEL)
            labels[index, span.start] = IGNORED_LABEL
            owner[index, span] = place
            positions[index, span] = torch.arange(sizes[place])
    images = tuple((row, placed) for row, conversation in enumerate(encoded) for placed in conversation.images)
    assert not (images and packed_to), "rows with images are not packed"
    attention, places = (None, positions) if packed_to else ((owner >= 0).long(), None)
    return TokenBatch(ids, labels, owner, attention, places, images)


def pack_rows(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing bin packing: the places of the sizes in each row (Johnson 1973: at most 11/9 of the fewest rows).

    A size over the capacity gets its own row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        fitting = [row for row, left in enumerate(room) if left >= sizes[place]]
        if fitting:
            row = min(fitting, key=lambda row: room[row])
            rows[row].append(place)
            room[row] -= sizes[place]
        else:
            rows.append([place])
            room.append(capacity - sizes[place])
    return rows


IMAGE_READER = "images"
"""The name of the module in a model."""


class ImageReader(nn.Module):
    """Reads images as some of a model's tokens. It is trained and counted with the model, and stored in a file of its own. The
    plugin has a function that gives a model the reader of a folder, as a part of kind `reader` with the file's name.
    """

    limits: ImageLimits

    def build_inputs(self, model: PreTrainedModel, batch: TokenBatch) -> dict[str, torch.Tensor]:
        """The model's inputs for a batch with images: embeddings, and which token attends to which."""
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Store it as `EMBEDDER_FILE`."""
        raise NotImplementedError

    def export(self, folder: Path) -> Path:
        """Write `PROJECTOR_FILE`, whole or not at all, which llama.cpp loads next to the model."""
        raise NotImplementedError

    def describe_use(self) -> str:
        """How to ask a student with it, in Markdown, for its card."""
        raise NotImplementedError


def find_image_reader(model: nn.Module) -> ImageReader | None:
    return getattr(model, IMAGE_READER, None)


def load_image_reader(model: PreTrainedModel, folder: Path) -> None:
    """Give `model`, which was loaded from `folder`, the reader that is stored there; nothing if there is none.

    Raises:
        UsageError: if no plugin has such readers, or the file is damaged.
    """
    if (folder / EMBEDDER_FILE).is_file():
        load_part("reader", EMBEDDER_FILE)(model, folder)


def save_model(model: Any, folder: Path) -> None:
    """Write the text model as transformers loads it, and its reader of images, if it has one, to a file of its own."""
    reader = find_image_reader(model)
    if reader is None:
        model.save_pretrained(folder)
        return
    delattr(model, IMAGE_READER)
    try:
        model.save_pretrained(folder)
    finally:
        setattr(model, IMAGE_READER, reader)
    reader.write(folder)


EVALUATION_BATCH = 8


class _SummedLoss(NamedTuple):
    """Summed cross-entropy in nats, and its number of tokens."""

    total: torch.Tensor
    tokens: int

    @property
    def mean(self) -> torch.Tensor:
        """Nats per token."""
        return self.total / self.tokens


class TokenPredictions(NamedTuple):
    """A model's prediction of each learned token of a batch, ordered by conversation."""

    logits: torch.Tensor
    """Of shape (tokens, words), in float32."""
    targets: torch.Tensor
    """The id of each token, of shape (tokens,)."""
    rows: torch.Tensor
    """The index of each token's conversation in the batch, of shape (tokens,)."""
    hidden: tuple[torch.Tensor, ...] = ()
    """The output of each layer, of shape (tokens, width); empty unless requested."""
    last: torch.Tensor | None = None
    """The last hidden states of the batch, of shape (conversations, longest, width); None unless requested."""

    def select_first(self, conversations: int) -> "TokenPredictions":
        """Those of the batch's first conversations."""
        first = self.rows < conversations
        return TokenPredictions(
            self.logits[first],
            self.targets[first],
            self.rows[first],
            tuple(layer[first] for layer in self.hidden),
            self.last if self.last is None else self.last[:conversations],
        )


def predict_tokens(
    model: PreTrainedModel, batch: TokenBatch, *, hidden: bool = False, last: bool = False
) -> TokenPredictions:
    """The model's prediction of each learned token given all tokens before it.

    Position `t` predicts token `t + 1`; the shift is made only here. Logits are computed only where the next token is learned:
    with a vocabulary of 49,152 they are more than half of a small student's compute.
    """
    batch = batch.to_device(model.device)
    targets, owner = batch.labels[:, 1:], batch.owner[:, 1:]
    indices = (targets != IGNORED_LABEL).nonzero()
    learned = tuple(indices[owner[tuple(indices.T)].argsort(stable=True)].T)
    reader = find_image_reader(model)
    assert reader or not batch.images, "a model without a reader of images gets none"
    output_layer: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    selection = output_layer.register_forward_pre_hook(lambda _layer, states: (states[0][learned],))
    try:
        output = model(
            **(
                reader.build_inputs(model, batch)
                if reader and batch.images
                else {"input_ids": batch.ids, **batch.layout}
            ),
            use_cache=False,
            output_hidden_states=hidden or last,
        )
    finally:
        selection.remove()
    layers = output.hidden_states[1:] if hidden else ()
    return TokenPredictions(
        output.logits.float(),
        targets[learned],
        owner[learned],
        tuple(layer[learned].float() for layer in layers),
        output.hidden_states[-1] if last else None,
    )


def compute_token_loss(model: PreTrainedModel, batch: TokenBatch) -> _SummedLoss:
    """Cross-entropy of the learned tokens."""
    predictions = predict_tokens(model, batch)
    return _SummedLoss(
        functional.cross_entropy(predictions.logits, predictions.targets, reduction="sum"), len(predictions.targets)
    )


@torch.no_grad()
def separates_packed_rows(model: PreTrainedModel, encoded: Sequence[EncodedConversation], pad: int) -> bool:
    """Whether the model's predictions for these conversations are the same packed in one row as alone, within rounding."""
    training = model.training
    model.train(False)
    alone = predict_tokens(model, build_batch(encoded, pad)).logits
    packed = predict_tokens(model, build_batch(encoded, pad, packed_to=sum(len(row.ids) for row in encoded))).logits
    model.train(training)
    return bool((alone - packed).abs().max() < 1e-4 * alone.abs().max())


@torch.no_grad()
def compute_held_out_loss(model: PreTrainedModel, held_out: Sequence[EncodedConversation], pad: int) -> float:
    """Mean cross-entropy in nats per assistant token: every token has the same weight in all batches.

    Computed in the precision of the weights, without autocast.
    """
    training = model.training
    model.train(False)
    total, tokens = 0.0, 0
    for first in range(0, len(held_out), EVALUATION_BATCH):
        loss = compute_token_loss(model, build_batch(held_out[first : first + EVALUATION_BATCH], pad))
        total += loss.total.item()
        tokens += loss.tokens
    model.train(training)
    return total / tokens


@torch.no_grad()
def round_weights(model: PreTrainedModel) -> None:
    """Give the parameters the values that they have when stored in bfloat16, in place, in their own precision.

    Buffers, such as the frequencies of rotary positions, are in no file, and are computed in float32 when a student is loaded;
    `model.bfloat16()` would shift the frequencies by up to 0.4 %.
    """
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())


def cast_weights(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model, its parameters in `dtype`."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model
