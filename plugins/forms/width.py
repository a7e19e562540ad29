"""Width pruning: the channels, neurons and heads of a Llama that are most active on training conversations.

Knows models and batches; knows nothing of training. Importance is measured as in Minitron (arXiv 2407.14679, section 2.2):
mean absolute activations over tokens in one forward pass.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import LlamaForCausalLM
from transformers.initialization import no_init_weights

from core.config.student_steps import ROW_MULTIPLE
from core.errors import UsageError
from core.storage.atomic_files import read_json
from students.predictions import TokenBatch, build_batch
from students.start_model import StartModel
from students.training.steps import StepCode, Training

KEPT_PARTS_FILE = "kept.json"
"""In a student's folder: the kept parts of the wider start."""
CALIBRATION_CONVERSATIONS = 64
"""Conversations on which the activity of a wider start is measured, in one batch; Minitron uses 1,024 texts."""


class KeptParts(NamedTuple):
    """The parts of a wider model that a narrower one keeps: sorted indices."""

    channels: list[int]
    neurons: list[list[int]]
    """Of the feed-forward part of each layer."""
    groups: list[list[int]]
    """Of each layer's attention: a group is a key-value head with the query heads that share it."""


class PartActivity(NamedTuple):
    """The activity of a model's parts: mean absolute values over tokens."""

    channels: torch.Tensor
    """Outputs of all norms, summed per channel."""
    neurons: list[torch.Tensor]
    groups: list[torch.Tensor]
    """Norms of the heads' outputs, summed over a group."""


def choose_most_active(model: LlamaForCausalLM, batch: TokenBatch, width: int) -> KeptParts:
    """The most active parts for `width` channels: neurons and groups in about the same proportion.

    Raises:
        UsageError: if the model is not wider than `width`, or no number of heads divides `width`, as transformers requires.
    """
    config: Any = model.config  # with defaults filled in
    if width >= config.hidden_size:
        raise UsageError(
            f"student.steps: width: hidden_size = {width} is no less than the start's {config.hidden_size}; lower it"
        )
    share = width / config.hidden_size
    neurons = max(ROW_MULTIPLE, round(share * config.intermediate_size / ROW_MULTIPLE) * ROW_MULTIPLE)
    queries = config.num_attention_heads // config.num_key_value_heads
    possible = [count for count in range(1, config.num_key_value_heads + 1) if width % (count * queries) == 0]
    if not possible:
        raise UsageError(
            f"student.steps: width: hidden_size = {width}: heads come from the teacher in groups of {queries} and must "
            f"divide it; use a multiple of {queries * 16}"
        )
    groups = min(possible, key=lambda count: abs(count - share * config.num_key_value_heads))
    activity = measure_activity(model, batch)
    return KeptParts(
        _find_largest(activity.channels, width),
        [_find_largest(values, neurons) for values in activity.neurons],
        [_find_largest(values, groups) for values in activity.groups],
    )


@torch.no_grad()
def measure_activity(model: LlamaForCausalLM, batch: TokenBatch) -> PartActivity:
    """The activity on the tokens of `batch`, without padding."""
    config: Any = model.config
    batch = batch.to_device(model.device)
    tokens = batch.attention.bool()
    means: dict[nn.Module, torch.Tensor] = {}

    def record(measure: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            values = output if module in norms else inputs[0]
            means[module] = measure(values[tokens].float()).mean(0)

        return hook

    def measure_groups(values: torch.Tensor) -> torch.Tensor:
        heads = values.reshape(len(values), config.num_key_value_heads, -1, config.head_dim)
        groups: torch.Tensor = heads.norm(dim=3).sum(2)
        return groups

    layers = list(model.model.layers)
    norms = [norm for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    norms.append(model.model.norm)
    downs, outs = [layer.mlp.down_proj for layer in layers], [layer.self_attn.o_proj for layer in layers]
    hooks = [module.register_forward_hook(record(torch.abs)) for module in (*norms, *downs)]
    hooks += [module.register_forward_hook(record(measure_groups)) for module in outs]
    try:
        model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    channels = torch.stack([means[norm] for norm in norms]).sum(0)
    return PartActivity(channels, [means[down] for down in downs], [means[out] for out in outs])


def _find_largest(values: torch.Tensor, count: int) -> list[int]:
    return sorted(values.topk(count).indices.tolist())


def narrow_model(model: LlamaForCausalLM, kept: KeptParts) -> LlamaForCausalLM:
    """A new model with the kept parts of the embedding, norms and matrices."""
    config: Any = type(model.config)(**model.config.to_dict())
    queries = config.num_attention_heads // config.num_key_value_heads
    config.hidden_size, config.intermediate_size = len(kept.channels), len(kept.neurons[0])
    config.num_key_value_heads = len(kept.groups[0])
    config.num_attention_heads = queries * len(kept.groups[0])
    with no_init_weights():
        narrow = LlamaForCausalLM(config)
    narrow.tie_weights()
    weights = {}
    for name, weight in model.state_dict().items():
        *_, owner, _ = name.split(".")
        if ".layers." not in name or "norm" in owner:  # norms have no columns
            weights[name] = weight[..., kept.channels]
            continue
        layer = int(name.split(".layers.")[1].split(".")[0])
        neurons, groups = kept.neurons[layer], kept.groups[layer]
        query_rows, key_rows = _expand_rows(groups, queries * config.head_dim), _expand_rows(groups, config.head_dim)
        rows = {"q_proj": query_rows, "k_proj": key_rows, "v_proj": key_rows, "gate_proj": neurons, "up_proj": neurons}
        columns = {"o_proj": query_rows, "down_proj": neurons}
        weights[name] = weight[rows.get(owner, kept.channels)][:, columns.get(owner, kept.channels)]
    narrow.load_state_dict(weights)
    narrow.to(model.device)  # type: ignore[arg-type]
    return narrow


def _expand_rows(groups: Sequence[int], size: int) -> list[int]:
    return [group * size + row for group in groups for row in range(size)]


class WidthCode(StepCode):
    """The step `width`."""

    _kept: KeptParts

    def __init__(self, hidden_size: int) -> None:
        self._width = hidden_size

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        batch = build_batch(training.sample_calibration(CALIBRATION_CONVERSATIONS), training.pad)
        self._kept = choose_most_active(start.model, batch, self._width)  # type: ignore[arg-type]
        return _narrow_start(start, self._kept)

    def rebuild(self, start: StartModel, student: Path) -> StartModel:
        return _narrow_start(start, KeptParts(**read_json(student / KEPT_PARTS_FILE)))

    def write_files(self, folder: Path) -> None:
        (folder / KEPT_PARTS_FILE).write_text(json.dumps(self._kept._asdict()), encoding="utf-8")


def _narrow_start(start: StartModel, kept: KeptParts) -> StartModel:
    made_from = f"{start.made_from}, {len(kept.channels)} of {start.model.config.hidden_size} channels wide"
    return start._replace(model=narrow_model(start.model, kept), made_from=made_from)  # type: ignore[arg-type]
