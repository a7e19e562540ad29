"""Batches of encoded conversations, and a model's predictions of the assistant's tokens in them and its loss on them.

Knows models, with or without a reader of images; knows nothing of training or of the conversations' origin.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from core.plugins import load_part
from core.shared_options import EMBEDDER_FILE
from core.weights.gguf_files import ImageLimits
from students.chat_encoding import EncodedConversation, EncodedImage

IGNORED_LABEL = -100
"""The label of a token that is not learned; torch's cross-entropy ignores it by default."""


class TokenBatch(NamedTuple):
    """Tensors of shape (conversations, longest), a conversation per row, padded on the right."""

    ids: torch.Tensor
    labels: torch.Tensor
    """Aligned with their tokens: the loss does the shift. The first token of a conversation is never learned."""
    attention: torch.Tensor
    """1 for tokens, 0 for padding, which is neither attended to nor learned."""
    images: tuple[tuple[int, EncodedImage], ...] = ()
    """Each with its row. The tokens of an image attend to each other in both directions."""

    def to_device(self, device: torch.device) -> "TokenBatch":
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in self._asdict().items() if isinstance(value, torch.Tensor)
        }
        return self._replace(**moved)


def build_batch(encoded: Sequence[EncodedConversation], pad: int) -> TokenBatch:
    """One conversation per row."""
    ids = torch.full((len(encoded), max(len(conversation.ids) for conversation in encoded)), pad)
    labels, attention = torch.full_like(ids, IGNORED_LABEL), torch.zeros_like(ids)
    for row, conversation in enumerate(encoded):
        size = len(conversation.ids)
        ids[row, :size] = torch.tensor(conversation.ids)
        labels[row, :size] = ids[row, :size].where(torch.tensor(conversation.learned), IGNORED_LABEL)
        attention[row, :size] = 1
    labels[:, 0] = IGNORED_LABEL
    images = tuple((row, placed) for row, conversation in enumerate(encoded) for placed in conversation.images)
    return TokenBatch(ids, labels, attention, images)


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


ROW_ATTENTION = "whole_rows"
"""The name among transformers' attention implementations."""
TOKENWISE = frozenset({"granite", "llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3"})
"""The `model_type` of models in which nothing but attention combines tokens."""


class DistinctTokens(NamedTuple):
    """A batch as a tree: equal tokens after equal beginnings are one, and padding is left out.

    In a Llama, only attention combines tokens; all else is computed once for each distinct token.
    """

    ids: torch.Tensor
    """Of shape (1, distinct)."""
    positions: torch.Tensor
    """Of shape (1, distinct)."""
    places: torch.Tensor
    """For each token of the rows its distinct token, of shape (rows, longest); 0 for padding."""
    first: torch.Tensor
    """For each distinct token its first place in the flattened rows, of shape (distinct,)."""

    def to_device(self, device: torch.device) -> "DistinctTokens":
        return DistinctTokens(*(tensor.to(device) for tensor in self))


def find_distinct_tokens(ids: torch.Tensor, mask: torch.Tensor) -> DistinctTokens:
    """Of rows that are padded on the right, both of shape (rows, longest); `mask` is 0 for padding."""
    longest = ids.shape[1]
    places = torch.zeros_like(ids)
    found: dict[tuple[int, int], tuple[int, int, int]] = {}
    for row, (tokens, size) in enumerate(zip(ids.tolist(), mask.sum(1).tolist(), strict=True)):
        place, path = -1, []
        for position, token in enumerate(tokens[:size]):
            place = found.setdefault((place, token), (len(found), position, row * longest + position))[0]
            path.append(place)
        places[row, :size] = torch.tensor(path)
    _, positions, first = zip(*found.values(), strict=True)
    distinct = torch.tensor([[token for _, token in found]])
    return DistinctTokens(distinct, torch.tensor([positions]), places, torch.tensor(first))


def is_tokenwise(model: PreTrainedModel) -> bool:
    """Whether nothing but attention over all earlier tokens combines a model's tokens, as far as its configuration tells."""
    config: Any = model.config
    full = all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
    windowed = getattr(config, "sliding_window", None) and not getattr(config, "layer_types", None)
    return config.model_type in TOKENWISE and config._attn_implementation == "sdpa" and full and not windowed


@contextmanager
def attend_in_rows(model: PreTrainedModel) -> Iterator[None]:
    """Let a model's attention see whole rows: its inputs are `ids`, `positions`, `places` and `first` of distinct tokens."""
    config: Any = model.config
    before = config._attn_implementation
    config._attn_implementation = ROW_ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    places: torch.Tensor,
    first: torch.Tensor,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention over the rows; queries of shape (1, heads, distinct, width), output (1, distinct, heads, width)."""
    spread = []
    for states in (query, key, value):
        rows = functional.embedding(places, states[0].transpose(0, 1).flatten(1))
        spread.append(rows.view(*places.shape, *states.shape[1::2]).transpose(1, 2))
    query, key, value = spread
    output, _ = sdpa_attention_forward(module, query, key, value, None, **options)
    heads = output.shape[2:]
    return functional.embedding(first, output.flatten(0, 1).flatten(1)).view(1, len(first), *heads), None


AttentionInterface.register(ROW_ATTENTION, _attend)


class TokenPredictions(NamedTuple):
    """A model's prediction of each learned token of a batch, ordered by conversation."""

    raw: torch.Tensor
    """The logits in the precision of the pass, of shape (tokens, words)."""
    targets: torch.Tensor
    """The id of each token, of shape (tokens,)."""
    rows: torch.Tensor
    """The index of each token's conversation in the batch, of shape (tokens,)."""
    hidden: tuple[torch.Tensor, ...] = ()
    """The output of each layer, of shape (tokens, width); empty unless requested."""
    last: torch.Tensor | None = None
    """The last hidden states of the batch, of shape (conversations, longest, width); None unless requested."""

    @property
    def logits(self) -> torch.Tensor:
        """In float32."""
        return self.raw.float()

    def select_first(self, conversations: int) -> "TokenPredictions":
        """Those of the batch's first conversations."""
        first = self.rows < conversations
        return TokenPredictions(
            self.raw[first],
            self.targets[first],
            self.rows[first],
            tuple(layer[first] for layer in self.hidden),
            self.last if self.last is None else self.last[:conversations],
        )


def predict_tokens(
    model: PreTrainedModel, batch: TokenBatch, *, hidden: bool = False, last: bool = False
) -> TokenPredictions:
    """The model's prediction of each learned token given all tokens before it.

    Position `t` predicts token `t + 1`; the shift is made only here. Logits are computed only for learned tokens: with a
    vocabulary of 49,152 they are more than half of a small student's compute. Where rows have padding or begin alike, the
    model reads their distinct tokens.
    """
    distinct = None
    if len(batch.ids) > 1 and not batch.images and is_tokenwise(model):
        distinct = find_distinct_tokens(batch.ids, batch.attention).to_device(model.device)
    batch = batch.to_device(model.device)
    targets = batch.labels[:, 1:]
    learned = (targets != IGNORED_LABEL).nonzero(as_tuple=True)
    reader = find_image_reader(model)
    assert reader or not batch.images, "a model without a reader of images gets none"
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention}
    if reader and batch.images:
        inputs = reader.build_inputs(model, batch)
    chosen = learned
    with ExitStack() as stack:
        if distinct:
            stack.enter_context(attend_in_rows(model))
            ids, positions, places, first = distinct
            inputs = {"input_ids": ids, "position_ids": positions, "places": places, "first": first}
            chosen = (torch.zeros_like(learned[0]), places[learned])
        head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        stack.callback(head.register_forward_pre_hook(lambda _, states: (states[0][chosen],)).remove)
        output = model(**inputs, use_cache=False, output_hidden_states=hidden or last)
    layers = output.hidden_states[1:] if hidden else ()
    final = output.hidden_states[-1] if last else None
    return TokenPredictions(
        output.logits,
        targets[learned],
        learned[0],
        tuple(layer[chosen].float() for layer in layers),
        final[0][distinct.places] if distinct and final is not None else final,
    )


def compute_token_loss(model: PreTrainedModel, batch: TokenBatch) -> _SummedLoss:
    """Cross-entropy of the learned tokens."""
    predictions = predict_tokens(model, batch)
    return _SummedLoss(
        functional.cross_entropy(predictions.logits, predictions.targets, reduction="sum"), len(predictions.targets)
    )


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
