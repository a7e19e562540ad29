"""Sliding windows with attention sinks: a Llama continues as a Granite SWA with the same weights.

Knows models; knows nothing of training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.granite_swa.configuration_granite_swa import GraniteSWAConfig
from transformers.models.granite_swa.modeling_granite_swa import GraniteSWAForCausalLM

from core.runs.student_records import StepRecord
from students.architecture import get_head_size, list_layer_types, list_llama_settings
from students.known_architectures import choose_attention, find_configuration_fault
from students.predictions import compute_held_out_loss
from students.start_model import StartModel
from students.training.steps import StepCode, Training

WINDOWED = "sliding_attention"
FIRST_SCORE = 0.0
"""The score of a sink before training, as in a new Granite SWA; benchmarks/student-forms.md compares it with others."""
NO_SINK = -1e4
"""The score of a sink that takes no attention: e to this power is 0 in every precision."""


def add_windows(
    model: LlamaForCausalLM, window: int, full_every: int = 4, *, sinks: bool = True
) -> GraniteSWAForCausalLM:
    """A new model with the weights of `model`, on its device.

    A Granite SWA is a Llama with four multipliers, which are those of a Llama here, and with a sink in every head. The sinks of
    layers without a window, and all without `sinks`, take no attention and are not trained.
    """
    llama: Any = model.config
    kinds = list_layer_types(llama.num_hidden_layers, full_every, WINDOWED)
    windowed_config = GraniteSWAConfig(
        **list_llama_settings(llama),
        sliding_window=window,
        layer_types=kinds,
        attention_multiplier=get_head_size(llama) ** -0.5,
        embedding_multiplier=1.0,
        residual_multiplier=1.0,
        logits_scaling=1.0,
    )
    with no_init_weights():
        windowed = GraniteSWAForCausalLM(windowed_config)
    windowed.tie_weights()
    scores = {
        f"model.layers.{layer}.self_attn.sinks": torch.full(
            (llama.num_attention_heads,), FIRST_SCORE if sinks and kind == WINDOWED else NO_SINK
        )
        for layer, kind in enumerate(kinds)
    }
    windowed.load_state_dict({**model.state_dict(), **scores})
    for layer, kind in zip(windowed.model.layers, kinds, strict=True):
        layer.self_attn.sinks.requires_grad_(sinks and kind == WINDOWED)
    choose_attention(windowed)
    windowed.to(model.device)
    return windowed


def _count_windowed_layers(model: PreTrainedModel) -> int:
    return list(model.config.layer_types).count(WINDOWED)


def add_start_windows(start: StartModel, window: int, full_every: int, *, sinks: bool = True) -> StartModel:
    """`start`, a Llama without scaled positions, with sliding windows."""
    model = add_windows(start.model, window, full_every, sinks=sinks)  # type: ignore[arg-type]
    assert find_configuration_fault(model.config) is None, "the start was checked"
    layers = f"{_count_windowed_layers(model)} of its {model.config.num_hidden_layers} layers"
    made_from = f"{start.made_from}, with windows of {window:,} tokens in {layers}"
    return start._replace(model=model, made_from=made_from)


class WindowsCode(StepCode):
    """The step `windows`."""

    _described: StepRecord

    def __init__(self, window: int, full_every: int, *, sinks: bool) -> None:
        self._window, self._full_every, self._sinks = window, full_every, sinks

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        full = compute_held_out_loss(start.model, training.data.held_out, training.pad)
        start = self._add(start)
        layers, windowed = start.model.config.num_hidden_layers, _count_windowed_layers(start.model)
        rows = training.data.train
        longer = sum(len(conversation.ids) > self._window for conversation in rows)
        form = f"windows of {self._window:,} tokens in {windowed} of {layers} layers"
        before = compute_held_out_loss(start.model, training.data.held_out, training.pad)
        training.progress(
            f"student: {form}; {longer} of {len(rows)} conversations are longer; held-out loss {full:.2f} -> {before:.2f}"
        )
        if not longer:
            training.progress(
                f"student: window = {self._window}: no training conversation is longer, so the windows change nothing in the "
                "training; lower the window, or train on longer conversations"
            )
        if windowed == layers:
            training.progress(
                f"student: full_every = {self._full_every}: the student has {layers} layers, so none attends to all tokens, and "
                "what an earlier part of the input says cannot be looked up"
            )
        text = f"{form}; held-out loss with full attention {full:.3f}, with windows {before:.3f}"
        values = {
            "window": self._window,
            "windowed_layers": windowed,
            "layers": layers,
            "longer": longer,
            "loss_full": full,
        }
        self._described = StepRecord(type="windows", rows={"attention": text}, values=values)
        return start

    def rebuild(self, start: StartModel, student: Path) -> StartModel:
        return self._add(start)

    def _add(self, start: StartModel) -> StartModel:
        return add_start_windows(start, self._window, self._full_every, sinks=self._sinks)

    def describe(self, training: Training, log: Sequence[Mapping[str, float]]) -> StepRecord:
        return self._described
