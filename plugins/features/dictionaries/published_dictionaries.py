"""Published autoencoders in the layouts of sparsify, SAELens and Qwen-Scope, from a folder or from the Hugging Face Hub.

All become one form, exactly: what another layout adds is folded into the weights. Only TopK autoencoders are read.
"""

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from core.errors import StoreError, UsageError
from core.storage.atomic_files import read_json
from core.storage.hub_files import HubPlace, find_hub_fault
from plugins.features.dictionaries.dictionary_files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    build_autoencoder,
    read_autoencoder,
    read_config,
)
from plugins.features.dictionaries.topk_autoencoder import TopKAutoencoder

SAELENS_WEIGHTS = "sae_weights.safetensors"
QWEN_FILE = re.compile(r"layer(\d+)\.sae\.pt")
QWEN_NAME = re.compile(r"SAE-Res-(?P<model>.+)-W\d+K-L0_(?P<k>\d+)")
"""A repository of Qwen-Scope names its model and its k."""
HOOKPOINT = re.compile(r"(?:^|[/._])(?:layers?|blocks|h)[._](\d+)(?=$|[/._])")
FORMS = (
    "sparsify (cfg.json, sae.safetensors), SAELens (cfg.json, sae_weights.safetensors) and Qwen-Scope (layerN.sae.pt)"
)


class PublishedDictionary(NamedTuple):
    autoencoder: TopKAutoencoder
    model: str | None
    """The model that it was trained on; None if its files do not say."""
    layer: int | None
    """From 0 on; None if its files do not say."""


def read_published_dictionary(name: str, k: int | None = None) -> PublishedDictionary:
    """`name`: a folder or a `layerN.sae.pt` file, or REPOSITORY:PATH on the hub, with a folder or file in the repository. `k`
    replaces that of the files, and is needed where they have none.

    Raises:
        UsageError: if it is not there, or no TopK autoencoder of a known layout.
    """
    path = _find_files(name)
    try:
        if QWEN_FILE.fullmatch(path.name):
            return _read_qwen(path, name, k)
        if (path / WEIGHTS_FILE).is_file():
            return _read_sparsify(path, name, k)
        if (path / SAELENS_WEIGHTS).is_file():
            return _read_saelens(path, k)
    except (
        ValueError,
        TypeError,
        AttributeError,
        StoreError,
        SafetensorError,
        OSError,
        RuntimeError,
        UnpicklingError,
        EOFError,
    ) as error:
        reason = str(error).split("\n", 1)[0]
        raise UsageError(f"--from {name}: cannot be read: {reason}") from None
    listed = sorted(part.name for part in path.iterdir())[:8] if path.is_dir() else [path.name]
    raise UsageError(
        f"--from {name}: has no autoencoder of a known layout; known are {FORMS}; it has {', '.join(listed) or 'nothing'}"
    )


def _find_files(name: str) -> Path:
    """The folder or file, downloaded if it is on the hub."""
    if Path(name).exists():
        return Path(name)
    repository, _, inside = name.partition(":")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or ".." in Path(inside).parts or inside.startswith("/"):
        raise UsageError(
            f"--from {name}: is not there; give a folder, a layerN.sae.pt file, or OWNER/REPOSITORY:PATH of the hub"
        )
    from huggingface_hub import constants, snapshot_download

    from students.start_model import hub_fault

    fault = hub_fault()
    patterns = [inside, f"{inside}/*", "config.json"] if inside else ["*.json", "*.safetensors"]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=fault is not None))
    except Exception as error:
        found = find_hub_fault(error, HubPlace(constants.ENDPOINT, repository, "repository", file=inside))
        if not found and not isinstance(error, OSError | ValueError):
            raise
        reason = fault or (found.sentence if found else str(error).split("\n", 1)[0])
        raise UsageError(f"--from {name}: cannot be downloaded: {reason}") from None
    if not (folder / inside).exists():
        raise UsageError(
            f"--from {name}: the repository has no {inside}; name one of its folders or files after the colon"
        )
    return folder / inside


def _read_sparsify(path: Path, name: str, k: int | None) -> PublishedDictionary:
    above = path.parent / "config.json"
    settings = read_json(above) if above.is_file() else {}
    model = settings.get("model") if isinstance(settings, dict) else None
    return PublishedDictionary(read_autoencoder(path, k), model, _find_layer(name))


def _read_saelens(path: Path, k: int | None) -> PublishedDictionary:
    """SAELens stores the encoder transposed, and may leave out the centre or scale latents by the norms of the decoder."""
    config = read_config(path)
    inner, metadata = (config.get(key) or {} for key in ("activation_fn_kwargs", "metadata"))
    if not isinstance(inner, dict) or not isinstance(metadata, dict):
        raise ValueError(f"{path / CONFIG_FILE}: activation_fn_kwargs and metadata must be objects")  # noqa: TRY004
    is_topk = config.get("architecture") == "topk" or "topk" in (
        config.get("activation_fn"),
        config.get("activation_fn_str"),
    )
    if not is_topk:
        kind = config.get("architecture") or config.get("activation_fn") or config.get("activation_fn_str") or "unknown"
        raise ValueError(f"{path}: its architecture is {kind!r}; only TopK autoencoders are read")
    normalization = config.get("normalize_activations") or "none"
    if normalization != "none":
        raise ValueError(f"{path}: normalizes activations by {normalization!r}, whose scale is not in its files")
    tensors = load_file(path / SAELENS_WEIGHTS)
    if missing := [part for part in ("W_enc", "b_enc", "W_dec", "b_dec") if part not in tensors]:
        raise ValueError(f"{path}: has no tensor {missing[0]!r}; it has {', '.join(sorted(tensors)[:6])}")
    autoencoder = _fold(
        {"encoder.weight": tensors["W_enc"].float().T, "encoder.bias": tensors["b_enc"].float(),
         "W_dec": tensors["W_dec"].float(), "b_dec": tensors["b_dec"].float()},
        k or config.get("k", inner.get("k")), path, centred=bool(config.get("apply_b_dec_to_input", True)),
    )  # fmt: skip
    if config.get("rescale_acts_by_decoder_norm"):
        norms = autoencoder.decoder.norm(dim=1)
        autoencoder = autoencoder._replace(
            encoder=autoencoder.encoder * norms[:, None], bias=autoencoder.bias * norms,
            decoder=autoencoder.decoder / norms.clamp_min(1e-12)[:, None],
        )  # fmt: skip
    described = {**config, **metadata}
    layer = _find_layer(str(described.get("hook_name", "")))
    return PublishedDictionary(autoencoder, described.get("model_name"), layer)


def _read_qwen(path: Path, name: str, k: int | None) -> PublishedDictionary:
    """Qwen-Scope stores the decoder transposed, and its encoder reads activations that are not centred."""
    tensors: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict):
        raise ValueError(f"{path}: holds no tensors by name")  # noqa: TRY004
    if missing := [
        part for part in ("W_enc", "b_enc", "W_dec", "b_dec") if not isinstance(tensors.get(part), torch.Tensor)
    ]:
        raise ValueError(f"{path}: has no tensor {missing[0]!r}")
    named = QWEN_NAME.search(name) or QWEN_NAME.search(str(path.parent))
    autoencoder = _fold(
        {"encoder.weight": tensors["W_enc"].float(), "encoder.bias": tensors["b_enc"].float(),
         "W_dec": tensors["W_dec"].float().T, "b_dec": tensors["b_dec"].float()},
        k or (int(named["k"]) if named else None), path, centred=False,
    )  # fmt: skip
    found = QWEN_FILE.fullmatch(path.name)
    assert found
    return PublishedDictionary(autoencoder, f"Qwen/{named['model']}" if named else None, int(found[1]))


def _fold(tensors: dict[str, torch.Tensor], k: Any, where: Path, *, centred: bool) -> TopKAutoencoder:
    """The same function with a centred encoder: W x + b = W (x - c) + (b + W c)."""
    tensors = {name: part.contiguous() for name, part in tensors.items()}
    autoencoder = build_autoencoder(tensors, k, where)
    if centred:
        return autoencoder
    return autoencoder._replace(bias=autoencoder.bias + autoencoder.encoder @ autoencoder.centre)


def _find_layer(hookpoint: str) -> int | None:
    """The layer of `layers.17`, `blocks.17.hook_resid_post` and the like."""
    found = HOOKPOINT.findall(hookpoint)
    return int(found[-1]) if found else None
