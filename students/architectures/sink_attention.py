"""Attention with a sink per head, as one more key of torch's fused attention. Registered with transformers on import.

The function for sinks that transformers 5.24 has itself stores the score of every query and key. Knows tensors; knows no model.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import and_masks, padding_mask_function, prepare_padding_mask, sdpa_mask

SINK_ATTENTION = "fused_with_sinks"
"""The name among transformers' attention implementations; one with `sdpa` in it is refused for a Granite SWA."""


def _attend_with_sinks(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    scaling: float,
    s_aux: torch.Tensor,
    dropout: float = 0.0,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each query to the keys that its mask allows and to its head's sink, a key of a given score and value 0.

    `query` has the shape (batch, heads, queries, channels), `key` and `value` (batch, key heads, keys, channels). `s_aux` has the
    scores of the sinks, shape (heads,), and `attention_mask` comes from `build_mask_with_sink`. Returns (batch, queries, heads,
    channels).
    """
    heads, queries = query.shape[1:3]
    groups = heads // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if attention_mask.ndim == 4:
        return _attend(query, key, value, attention_mask, scaling, s_aux, dropout).transpose(1, 2).contiguous(), None
    batch, blocks, _, window, _ = attention_mask.shape
    query = _cut_windows(query, window, blocks, 0)
    key, value = _cut_windows(key, window, blocks, 1), _cut_windows(value, window, blocks, 1)
    output = _attend(query, key, value, attention_mask.flatten(0, 1), scaling, s_aux, dropout)
    whole = output.reshape(batch, blocks, heads, window, -1).transpose(2, 3).flatten(1, 2)
    return whole[:, :queries].contiguous(), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    sinks: torch.Tensor,
    dropout: float,
) -> torch.Tensor:
    """A channel of 1 in each query, and of the sink's score over the scaling in the sink's key, makes that score; all other keys
    have 0 there. So the scores get gradients, and no kernel needs a bias with a gradient. Of the shape of `query`.
    """
    channels = query.shape[3]
    scores = functional.pad((sinks / scaling).view(1, -1, 1, 1), (channels, 0, key.shape[2], 0))
    output = functional.scaled_dot_product_attention(
        functional.pad(query, (0, 1), value=1.0),
        functional.pad(key, (0, 1, 0, 1)) + scores.to(key.dtype),
        functional.pad(value, (0, 1, 0, 1)),
        attn_mask=mask,
        dropout_p=dropout,
        scale=scaling,
    )
    return output[..., :channels]


def _cut_windows(states: torch.Tensor, window: int, blocks: int, before: int) -> torch.Tensor:
    """Blocks of `window` positions, each with `before` blocks before it, of shape (batch * blocks, heads, positions, channels).

    `states` has the shape (batch, heads, positions, channels); positions outside of it are 0.
    """
    padded = functional.pad(states, (0, 0, before * window, blocks * window - states.shape[2]))
    return padded.unfold(2, (before + 1) * window, window).permute(0, 2, 1, 4, 3).flatten(0, 1)


def build_mask_with_sink(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    *,
    mask_function: Callable[..., torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    device: torch.device | str = "cpu",
    **_kwargs: Any,
) -> torch.Tensor:
    """The mask of allowed keys, with the sink as a last key that is always allowed; the arguments are transformers'.

    Of shape (batch, 1, queries, keys + 1). For a window of `local_size` positions of an input more than twice as long, of shape
    (batch, blocks, 1, window, 2 * window + 1): a block of queries meets the keys of its own block and of the one before, so the
    cost grows with the length instead of its square.
    """
    if local_size and q_length == kv_length > 2 * local_size and q_offset == kv_offset == 0:
        padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
        allowed = mask_function if padding is None else and_masks(mask_function, padding_mask_function(padding))
        mask = _build_block_mask(batch_size, q_length, local_size, allowed, device)
    else:
        square = sdpa_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset,
            kv_offset,
            mask_function,
            attention_mask,
            local_size,
            allow_is_causal_skip=False,
            device=device,
        )
        assert square is not None, "it is not left out"
        mask = square
    return functional.pad(mask, (0, 1), value=True)


def _build_block_mask(
    batch: int, length: int, window: int, allowed: Callable[..., torch.Tensor], device: torch.device | str
) -> torch.Tensor:
    """The values of `allowed` for each block of queries, of shape (batch, blocks, 1, window, 2 * window)."""
    begin = torch.arange(0, length, window, device=device)[:, None]
    queries = (begin + torch.arange(window, device=device)).clamp(max=length - 1)[None, :, None, :, None]
    keys = (begin + torch.arange(-window, window, device=device))[None, :, None, None, :]
    inside = (keys >= 0) & (keys < length)
    rows = torch.arange(batch, device=device)[:, None, None, None, None]
    mask = allowed(rows, torch.zeros_like(rows[:1]), queries, keys.clamp(0, length - 1)) & inside
    return mask.expand(batch, -1, -1, -1, -1)


AttentionInterface.register(SINK_ATTENTION, _attend_with_sinks)
AttentionMaskInterface.register(SINK_ATTENTION, build_mask_with_sink)
