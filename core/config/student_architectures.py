"""The names of the architectures that a student can have, known without torch.

`students.architectures` has what they are. A run rejects another start before it asks its teacher.
"""

import json
from pathlib import Path

STUDENT_ARCHITECTURES = (
    "gemma3_text", "granite", "granite_swa", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_5_text", "smollm3",
)  # fmt: skip
"""The `model_type` in a model's config.json."""

EMBEDDED_STARTS = ("layers", "width", "random")
"""Names of starts that are no folder; all are Llamas."""

WINDOWED_START = "llama"
"""The architecture of a start that can get sliding windows."""


def describe_unknown_architecture(model_type: str | None) -> str:
    """Why a model of another architecture can be no student, in words."""
    *first, last = STUDENT_ARCHITECTURES
    return f"is a {model_type!r}; a student is a {', '.join(first)} or {last}"


def describe_unwindowed_architecture(model_type: str | None) -> str:
    """Why a model of another architecture cannot get sliding windows, in words."""
    if model_type == "granite_swa":
        return "has sliding windows already; leave attention out to keep them"
    return f"is a {model_type!r}; attention needs a {WINDOWED_START} as start, such as layers, or leave it out"


def find_start_fault(start: str, *, with_windows: bool) -> str | None:
    """Why the model in the folder `start` can be no student, in words; None if it can, or is no folder of a model.

    `with_windows` says whether the student gets sliding windows.
    """
    settings = Path(start) / "config.json"
    if start in EMBEDDED_STARTS or not settings.is_file():
        return None
    try:
        model_type = json.loads(settings.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        return "has a config.json that is no JSON object"
    if model_type not in STUDENT_ARCHITECTURES:
        return describe_unknown_architecture(model_type)
    return describe_unwindowed_architecture(model_type) if with_windows and model_type != WINDOWED_START else None
