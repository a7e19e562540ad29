"""A start made narrower: the channels, neurons and heads of a Llama that are most active on training conversations.

Knows models and batches; knows nothing of training. Importance is measured as in Minitron (arXiv 2407.14679, section 2.2), by
absolute activations in one forward pass, as means over tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import LlamaForCausalLM
from transformers.initialization import no_init_weights

from core.errors import UsageError
from students.data import Batch

BLOCK = 32
"""The feed-forward width is a multiple of it: rows of other lengths cannot be stored in 8 or 4 bits (GGUF)."""


class Kept(NamedTuple):
    """What of a wider model a narrower one is made of, by number, rising."""

    channels: list[int]
    neurons: list[list[int]]
    """Of the feed-forward part of each layer."""
    groups: list[list[int]]
    """Of each layer's attention: a key-value head with the query heads that share it."""


class Activity(NamedTuple):
    """How active the parts of a model are: mean absolute values over tokens."""

    channels: torch.Tensor
    """What all norms together make of each channel."""
    neurons: list[torch.Tensor]
    groups: list[torch.Tensor]
    """Norms of the heads' outputs, summed over a group."""


def most_active(model: LlamaForCausalLM, batch: Batch, width: int) -> Kept:
    """What to keep for `width` channels: neurons and groups in about the same proportion.

    Raises:
        UsageError: if the model is no wider than that, or no number of heads divides it, which transformers asks for.
    """
    config: Any = model.config  # which has filled in what it was not told
    if width >= config.hidden_size:
        raise UsageError(
            f"student.hidden_size = {width}: start = 'width' makes the teacher narrower, and it has {config.hidden_size}; "
            "lower it, or use start = 'layers'"
        )
    share = width / config.hidden_size
    neurons = max(BLOCK, round(share * config.intermediate_size / BLOCK) * BLOCK)
    queries = config.num_attention_heads // config.num_key_value_heads
    possible = [count for count in range(1, config.num_key_value_heads + 1) if width % (count * queries) == 0]
    if not possible:
        raise UsageError(
            f"student.hidden_size = {width}: heads are taken from the teacher {queries} at a time and have to divide it; use a "
            f"multiple of {queries * 16}"
        )
    groups = min(possible, key=lambda count: abs(count - share * config.num_key_value_heads))
    found = activity(model, batch)
    return Kept(
        _largest(found.channels, width),
        [_largest(values, neurons) for values in found.neurons],
        [_largest(values, groups) for values in found.groups],
    )


@torch.no_grad()
def activity(model: LlamaForCausalLM, batch: Batch) -> Activity:
    """Of the tokens of `batch`, padding left out."""
    config: Any = model.config
    batch = batch.on(model.device)
    tokens = batch.owner >= 0
    seen: dict[nn.Module, torch.Tensor] = {}

    def sees(measure: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def hook(module: nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> None:
            values = made if module in norms else given[0]
            seen[module] = measure(values[tokens].float()).mean(0)

        return hook

    def of_groups(values: torch.Tensor) -> torch.Tensor:
        heads = values.reshape(len(values), config.num_key_value_heads, -1, config.head_dim)
        groups: torch.Tensor = heads.norm(dim=3).sum(2)
        return groups

    layers = list(model.model.layers)
    norms = [norm for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    norms.append(model.model.norm)
    downs, outs = [layer.mlp.down_proj for layer in layers], [layer.self_attn.o_proj for layer in layers]
    hooks = [module.register_forward_hook(sees(torch.abs)) for module in (*norms, *downs)]
    hooks += [module.register_forward_hook(sees(of_groups)) for module in outs]
    try:
        model(input_ids=batch.ids, **batch.layout, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    channels = torch.stack([seen[norm] for norm in norms]).sum(0)
    return Activity(channels, [seen[down] for down in downs], [seen[out] for out in outs])


def _largest(values: torch.Tensor, count: int) -> list[int]:
    return sorted(values.topk(count).indices.tolist())


def cut(model: LlamaForCausalLM, kept: Kept) -> LlamaForCausalLM:
    """A new model of what is kept; its embedding, norms and matrices are parts of the given ones."""
    config: Any = type(model.config)(**model.config.to_dict())
    queries = config.num_attention_heads // config.num_key_value_heads
    config.hidden_size, config.intermediate_size = len(kept.channels), len(kept.neurons[0])
    config.num_key_value_heads = len(kept.groups[0])
    config.num_attention_heads = queries * len(kept.groups[0])
    with no_init_weights():
        narrow = LlamaForCausalLM(config)
    narrow.tie_weights()
    weights = model.state_dict()
    narrow.load_state_dict({name: _part(name, weights[name], kept, queries, config.head_dim) for name in weights})
    narrow.to(model.device)  # type: ignore[arg-type]
    return narrow


def _part(name: str, weight: torch.Tensor, kept: Kept, queries: int, head: int) -> torch.Tensor:
    """Rows and columns of a weight; norms have no columns."""
    *_, owner, _ = name.split(".")
    if ".layers." not in name or "norm" in owner:
        return weight[..., kept.channels]
    layer = int(name.split(".layers.")[1].split(".")[0])
    neurons, groups = kept.neurons[layer], kept.groups[layer]
    rows = {"q_proj": _rows(groups, queries * head), "k_proj": _rows(groups, head), "v_proj": _rows(groups, head),
            "gate_proj": neurons, "up_proj": neurons}  # fmt: skip
    columns = {"o_proj": _rows(groups, queries * head), "down_proj": neurons}
    return weight[rows.get(owner, kept.channels)][:, columns.get(owner, kept.channels)]


def _rows(groups: Sequence[int], size: int) -> list[int]:
    return [group * size + row for group in groups for row in range(size)]
