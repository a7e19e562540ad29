"""The names of the architectures that a student can have, known without torch. `students.architectures` has what they are."""

STUDENT_ARCHITECTURES = (
    "bitnet", "gemma3_text", "granite", "granite_swa", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_5_text",
    "smollm3",
)  # fmt: skip
"""The `model_type` in a model's config.json."""

EMBEDDED_STARTS = ("layers", "random")
"""Names of starts that are no folder; all are Llamas."""


MEMORY_START, MEMORY_LAYER = "qwen3_5_text", "linear_attention"
"""The architecture of a hybrid, and transformers' name of its layers that have a memory instead of attention."""

ROW_MULTIPLE = 32
"""Of the feed-forward width: rows of other lengths cannot be stored in 8 or 4 bits (GGUF)."""
TERNARY_BLOCK = 256
"""Weights of a row that share a scale in llama.cpp's `TQ2_0`."""


def describe_unknown_architecture(model_type: str | None) -> str:
    """Why a model of another architecture can be no student, in words."""
    *first, last = STUDENT_ARCHITECTURES
    return f"is a {model_type!r}; a student is a {', '.join(first)} or {last}"
