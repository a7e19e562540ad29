"""What a start lacks for a form, by the settings in its config.json. Knows no torch."""

from collections.abc import Mapping
from typing import Any

from core.config.student_steps import TERNARY_BLOCK
from core.config.students import find_bitnet_fault, find_shared_settings_fault

HYBRID_PERIOD = 4
"""Every layer of a hybrid whose number, counted from 1, is a multiple of this has attention, as in Qwen3.5."""
WINDOWED_START = "llama"
"""The `model_type` of starts that can get sliding windows."""
TERNARY_STARTS = ("bitnet", "llama")
"""The `model_type` of starts that can become ternary: a BitNet has no tensors for what the others have besides a Llama's."""


def find_ternary_fault(settings: Mapping[str, Any]) -> str | None:
    """Why a model with these settings cannot become ternary, in words; None if it can."""
    if (kind := settings.get("model_type")) not in TERNARY_STARTS:
        return f"is a {kind!r}; a ternary student is a {' or '.join(TERNARY_STARTS)}"
    for name in ("hidden_size", "intermediate_size"):
        size = settings.get(name)
        if isinstance(size, int) and size % TERNARY_BLOCK:
            return (
                f"has {name} = {size}; ternary rows are stored in blocks of {TERNARY_BLOCK}, so it would have to be "
                f"{name_multiples(size)}"
            )
    if fault := find_bitnet_fault(settings):
        return f"has {fault}, which llama.cpp's bitnet does not compute; leave the step ternary out"
    return None


def name_multiples(size: int) -> str:
    """The multiples of TERNARY_BLOCK next to `size`, at least one block."""
    below = size // TERNARY_BLOCK * TERNARY_BLOCK
    return " or ".join(str(multiple) for multiple in (below, below + TERNARY_BLOCK) if multiple)


def find_windows_fault(settings: Mapping[str, Any]) -> str | None:
    """Why a model cannot get sliding windows, in words; None if it can."""
    if (kind := settings.get("model_type")) == "granite_swa":
        return "has sliding windows already; leave the step windows out to keep them"
    if kind != WINDOWED_START:
        return f"is a {kind!r}; windows need a {WINDOWED_START} as start, such as layers, or leave it out"
    if fault := find_shared_settings_fault(settings):
        return f"has {fault}, which cannot be exported with windows; leave the step out"
    return None
