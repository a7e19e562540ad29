"""The names of the architectures that a student can have, known without torch.

`students.architectures` has what they are. A run rejects another start before it asks its teacher.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STUDENT_ARCHITECTURES = (
    "bitnet", "gemma3_text", "granite", "granite_swa", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_5_text",
    "smollm3",
)  # fmt: skip
"""The `model_type` in a model's config.json."""

EMBEDDED_STARTS = ("layers", "width", "random")
"""Names of starts that are no folder; all are Llamas."""

WINDOWED_START = "llama"
"""The architecture of a start that can get sliding windows."""

TERNARY_BLOCK = 256
"""Weights of a row that share a scale in llama.cpp's `TQ2_0`."""
TERNARY_STARTS = ("bitnet", "llama")
"""The `model_type` of starts that can become ternary: a BitNet has no tensors for what the others have besides a Llama's."""


def describe_unknown_architecture(model_type: str | None) -> str:
    """Why a model of another architecture can be no student, in words."""
    *first, last = STUDENT_ARCHITECTURES
    return f"is a {model_type!r}; a student is a {', '.join(first)} or {last}"


def describe_unwindowed_architecture(model_type: str | None) -> str:
    """Why a model of another architecture cannot get sliding windows, in words."""
    if model_type == "granite_swa":
        return "has sliding windows already; leave attention out to keep them"
    return f"is a {model_type!r}; attention needs a {WINDOWED_START} as start, such as layers, or leave it out"


def find_start_fault(start: str, *, with_windows: bool = False, ternary: bool = False) -> str | None:
    """Why the model in the folder `start` can be no student, in words; None if it can, or is no folder of a model.

    `with_windows` and `ternary` say what the student gets.
    """
    file = Path(start) / "config.json"
    if start in EMBEDDED_STARTS or not file.is_file():
        return None
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        model_type = settings.get("model_type")
    except (ValueError, AttributeError):
        return "has a config.json that is no JSON object"
    if model_type not in STUDENT_ARCHITECTURES:
        return describe_unknown_architecture(model_type)
    if with_windows and model_type != WINDOWED_START:
        return describe_unwindowed_architecture(model_type)
    return find_ternary_fault(settings) if ternary else None


def find_ternary_fault(settings: Mapping[str, Any]) -> str | None:
    """Why a model with these settings of its config.json cannot become ternary, in words; None if it can."""
    if settings["model_type"] not in TERNARY_STARTS:
        return f"is a {settings['model_type']!r}; a ternary student is a {' or '.join(TERNARY_STARTS)}"
    for name in ("hidden_size", "intermediate_size"):
        if (size := settings.get(name)) is not None and size % TERNARY_BLOCK:
            near = " or ".join(map(str, find_nearest_multiples(size)))
            return f"has {name} = {size}; ternary rows are stored in blocks of {TERNARY_BLOCK}, so it would have to be {near}"
    return None


def find_nearest_multiples(size: int) -> list[int]:
    """The multiples of TERNARY_BLOCK next to `size`, at least one block."""
    below = size // TERNARY_BLOCK * TERNARY_BLOCK
    return [multiple for multiple in (below, below + TERNARY_BLOCK) if multiple]
