"""Drafts by a model's own block for multi-token prediction (`nextn` in a GGUF file). Knows llama.cpp's parameters only."""

from typing import Any


def mtp_draft_settings(tokens: int) -> dict[str, Any]:
    """llama.cpp's parameters, to be added to `llama_settings`: the block proposes `tokens` tokens, and the model verifies them.

    A file without a block cannot be loaded with them.
    """
    return {
        "load_mtp": True,
        "speculative.types": ["COMMON_SPECULATIVE_TYPE_DRAFT_MTP"],
        "speculative.draft.n_max": tokens,
        "speculative.draft.p_min": 0.0,  # each proposal has all tokens
    }
