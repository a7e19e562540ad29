"""Values that recipes, commands and the Python API share: closed sets of names, and defaults. Imports nothing heavy."""

from typing import Literal

DataKind = Literal["arithmetic", "characters", "code", "dialogue", "json", "prose"]
"""The kinds of data that the collapse assessment knows (`filters.collapse.text_kinds`)."""
GgufType = Literal["f32", "f16", "q8_0", "q4_0", "tq2_0"]
"""Number formats of a student's weights in a GGUF file."""
DEFAULT_GGUF_TYPE: GgufType = "q8_0"
"""How a student is stored to be asked: within 0.1 % of the loss of bfloat16, half the size."""
DRAFT_TOKENS = 3
"""Tokens that a draft proposes at once."""
DEFAULT_PANEL = 64
"""Tasks of the general panel."""
DEFAULT_PREVIEW_SAMPLES, MOST_PREVIEW_SAMPLES = 3, 50
"""Samples in one preview."""
DEFAULT_ASSESS_SEED = 7
"""Of the draws from a reference, and of their order."""
PROJECTOR_FILE = "mmproj-f32.gguf"
"""In the folder of a student that sees: its embedder of images, for each of its exports."""
EMBEDDER_FILE = "images.safetensors"
"""In the folder of a student that sees: the weights of its embedder of images, with its settings."""
MIN_PATCH, MAX_PATCH = 4, 64
"""Pixels of the side of a patch, for a student that sees."""
MAX_PATCHES_A_SIDE = 22
"""llama.cpp reads an image in one batch of 512 tokens, since its patches attend to each other."""


def name_student_file(kind: str = DEFAULT_GGUF_TYPE) -> str:
    """The name of a student's export in its folder."""
    return f"student-{kind}.gguf"
