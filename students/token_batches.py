"""Encoded conversations as padded or packed tensors. Knows no tokenizer and no model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

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
