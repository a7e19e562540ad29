"""The autoencoder finds known directions, resumes to the same weights, and is read from every layout as it was written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import UsageError
from plugins.features.config import DictionarySettings
from plugins.features.dictionaries.autoencoder_training import TrainingStatus, train_autoencoder
from plugins.features.dictionaries.dictionary_files import read_autoencoder, write_autoencoder
from plugins.features.dictionaries.published_dictionaries import read_published_dictionary
from plugins.features.dictionaries.topk_autoencoder import TopKAutoencoder, build_random_dictionary, measure_quality

DIRECTIONS, WIDTH, ACTIVE = 64, 48, 3
SETTINGS = DictionarySettings(latents=96, k=ACTIVE, epochs=12, batch=256, learning_rate=5e-3)


def draw_activations(tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of three of 64 known directions in 48 dimensions, away from the origin."""
    generator = torch.Generator().manual_seed(123)  # another than those of the training and of the random dictionary
    directions = torch.randn(DIRECTIONS, WIDTH, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    chosen = torch.rand(tokens, DIRECTIONS, generator=generator).topk(ACTIVE, dim=1).indices
    weights = torch.rand(tokens, ACTIVE, generator=generator) + 0.5
    return directions, (directions[chosen] * weights[:, :, None]).sum(1) + 5


def train(activations: torch.Tensor, checkpoint: Path, stop_at: int = 0) -> TopKAutoencoder:
    def progress(status: TrainingStatus) -> None:
        if status.step == stop_at:
            raise KeyboardInterrupt

    return train_autoencoder(activations, 96, SETTINGS, checkpoint, "same", progress)


def count_recovered(dictionary: TopKAutoencoder, directions: torch.Tensor) -> int:
    rows = dictionary.decoder / dictionary.decoder.norm(dim=1, keepdim=True)
    return int(((directions @ rows.T).amax(1) > 0.9).sum())


def test_it_finds_the_directions_that_activations_are_made_of(tmp_path: Path) -> None:
    directions, activations = draw_activations(8_000)
    learned = train(activations[:7_500], tmp_path / "state.pt")
    random = build_random_dictionary(learned, activations[:7_500], 1)
    found = [measure_quality(one, activations[7_500:]).explained_variance for one in (learned, random)]
    assert count_recovered(learned, directions) >= 60
    assert count_recovered(random, directions) <= 2
    assert found[0] > 0.9
    assert found[1] < found[0] - 0.2


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    _, activations = draw_activations(1_000)
    whole = train(activations, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        train(activations, tmp_path / "parts.pt", stop_at=20)
    assert torch.load(tmp_path / "parts.pt", weights_only=True)["step"] == 20
    resumed = train(activations, tmp_path / "parts.pt")
    for name in ("encoder", "bias", "decoder", "centre"):
        assert torch.equal(getattr(whole, name), getattr(resumed, name))


@pytest.fixture
def small() -> TopKAutoencoder:
    generator = torch.Generator().manual_seed(1)
    parts = (torch.randn(shape, generator=generator) for shape in ((12, 6), (12,), (12, 6), (6,)))
    return TopKAutoencoder(*parts, 3)


def test_the_files_are_those_of_sparsify(small: TopKAutoencoder, tmp_path: Path) -> None:
    """Names, shapes and settings of sparsify 1.3: its `load_from_disk` reads them with `strict=True`."""
    write_autoencoder(tmp_path, small)
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "sae.safetensors").items()}
    assert shapes == {"encoder.weight": (12, 6), "encoder.bias": (12,), "W_dec": (12, 6), "b_dec": (6,)}
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert {"activation": "topk", "k": 3, "num_latents": 12, "d_in": 6, "transcode": False}.items() <= config.items()
    read = read_autoencoder(tmp_path)
    assert all(torch.equal(*pair) for pair in zip(read[:4], small[:4], strict=True))
    assert read.k == 3


@pytest.mark.parametrize("form", ["sparsify", "saelens", "saelens scaled", "qwen"])
def test_published_layouts_compute_what_their_libraries_do(form: str, small: TopKAutoencoder, tmp_path: Path) -> None:
    """Each is computed here as its own library does it, on the same activations."""
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
    folder = tmp_path / "layers.4"
    folder.mkdir()
    if form == "sparsify":
        write_autoencoder(folder, small)
        latents = ((x - small.centre) @ small.encoder.T + small.bias).relu()
        scale = torch.ones(12)
        name = str(folder)
    elif form == "qwen":
        tensors = {
            "W_enc": small.encoder,
            "W_dec": small.decoder.T.contiguous(),
            "b_enc": small.bias,
            "b_dec": small.centre,
        }
        name = str(tmp_path / "layer4.sae.pt")
        torch.save(tensors, name)
        latents = x @ small.encoder.T + small.bias
        scale = torch.ones(12)
    else:
        scaled = form == "saelens scaled"
        tensors = {
            "W_enc": small.encoder.T.contiguous(),
            "W_dec": small.decoder,
            "b_enc": small.bias,
            "b_dec": small.centre,
        }
        save_file(tensors, folder / "sae_weights.safetensors")
        config = {
            "architecture": "topk", "k": 3, "apply_b_dec_to_input": scaled, "rescale_acts_by_decoder_norm": scaled,
            "normalize_activations": "none", "metadata": {"hook_name": "blocks.4.hook_resid_post", "model_name": "own/model"},
        }  # fmt: skip
        (folder / "cfg.json").write_text(json.dumps(config))
        norms = small.decoder.norm(dim=1)
        scale = norms if scaled else torch.ones(12)
        latents = ((x - small.centre * scaled) @ small.encoder.T + small.bias) * scale
        name = str(folder)
    values, indices = latents.topk(3, dim=1)
    values = values.relu()
    rebuilt = (small.decoder / scale[:, None])[indices].mul(values[:, :, None]).sum(1) + small.centre
    taken = read_published_dictionary(name, 3)
    assert taken.layer == 4
    assert taken.model == ("own/model" if form.startswith("saelens") else None)
    active = taken.autoencoder.encode(x)
    assert torch.allclose(active.values.sort(dim=1).values, values.sort(dim=1).values, atol=1e-5)
    assert torch.allclose(taken.autoencoder.decode(active), rebuilt, atol=1e-4)


def test_other_layouts_are_refused_in_a_sentence(small: TopKAutoencoder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no autoencoder of a known layout; known are sparsify"):
        read_published_dictionary(str(tmp_path))
    with pytest.raises(UsageError, match="is not there; give a folder"):
        read_published_dictionary(str(tmp_path / "missing"))
    torch.save({"W_enc": small.encoder}, tmp_path / "layer0.sae.pt")
    with pytest.raises(UsageError, match="has no tensor 'b_enc'"):
        read_published_dictionary(str(tmp_path / "layer0.sae.pt"))
    write_autoencoder(tmp_path / "bad", small._replace(bias=small.bias * float("nan")))
    with pytest.raises(UsageError, match="values that are no numbers"):
        read_published_dictionary(str(tmp_path / "bad"))
    save_file({"W_enc": small.encoder.T.contiguous()}, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text('{"architecture": "jumprelu"}')
    with pytest.raises(UsageError, match="its architecture is 'jumprelu'; only TopK autoencoders are read"):
        read_published_dictionary(str(tmp_path))
