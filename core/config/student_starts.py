"""Whether a model can be the start of a student, by the settings in its config.json. Knows no weights, and needs no torch.

A run rejects a start before it asks its teacher; a training looks again at the settings as transformers reads them, with all
defaults.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from core.config.student_architectures import (
    EMBEDDED_STARTS,
    MEMORY_LAYER,
    MEMORY_START,
    STUDENT_ARCHITECTURES,
    describe_unknown_architecture,
)
from core.config.students import StudentConfig


def find_start_fault(config: StudentConfig) -> str | None:
    """Why the model in the folder `config.start` cannot become the student, None if it can or there is none."""
    file = Path(config.start) / "config.json"
    if config.start in EMBEDDED_STARTS or not file.is_file():
        return None
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        return "has a config.json that is no JSON object"
    return find_start_settings_fault(settings, config)


def find_start_settings_fault(settings: Mapping[str, Any], config: StudentConfig) -> str | None:
    """Why a model with these settings cannot become the student, in words; None if it can, as far as settings tell."""
    if settings.get("model_type") not in STUDENT_ARCHITECTURES:
        return describe_unknown_architecture(settings.get("model_type"))
    if config.packing and _has_memories(settings):
        return "has memories, which would carry over from one conversation of a row to the next; use packing = false"
    return next((fault for step in config.steps if (fault := step.find_start_fault(settings))), None)


def _has_memories(settings: Mapping[str, Any]) -> bool:
    """Whether some layers have a memory instead of attention."""
    return settings.get("model_type") == MEMORY_START and MEMORY_LAYER in settings.get("layer_types", [MEMORY_LAYER])


def find_bitnet_fault(settings: Mapping[str, Any]) -> str | None:
    """What llama.cpp's `bitnet` does not compute: it has square query matrices, no output matrix and SiLU."""
    if not settings.get("tie_word_embeddings"):
        return "an output matrix besides the embedding"
    head, heads, width = (settings.get(name) for name in ("head_dim", "num_attention_heads", "hidden_size"))
    if head and heads and head * heads != width:
        return "heads whose channels are not its hidden_size"
    return find_shared_settings_fault(settings)


def find_shared_settings_fault(settings: Mapping[str, Any], rope_types: Collection[str] = ("default",)) -> str | None:
    """What llama.cpp does not compute, of the settings that all architectures have; it computes positions of `rope_types`."""
    if (rope := _find_rope_type(settings)) not in rope_types:
        return f"positions of the type {rope!r}"
    if settings.get("attention_bias") or settings.get("mlp_bias"):
        return "biases"
    if (activation := settings.get("hidden_act", "silu")) != "silu":
        return f"the activation {activation!r}"
    return None


def _find_rope_type(settings: Mapping[str, Any]) -> Any:
    """The type of the rotary positions, under transformers' present or former name; of layers without a window, if two differ."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling")
    if isinstance(rope, Mapping) and isinstance(rope.get("full_attention"), Mapping):
        rope = rope["full_attention"]
    return rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, Mapping) else "default"
