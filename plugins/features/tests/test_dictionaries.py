"""A dictionary of a whole small model: made, resumed, read again, and refused for another model."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import UsageError
from plugins.features.config import DictionarySettings
from plugins.features.dictionaries.activation_reader import ActivationReader
from plugins.features.dictionaries.dictionary_building import build_dictionary, locate_work_folder
from plugins.features.dictionaries.dictionary_files import load_dictionary
from plugins.features.dictionaries.document_features import FeatureReader
from plugins.features.dictionaries.published_dictionaries import read_published_dictionary

WORDS = "bees rivers bread chess rain maps owls tea yoga trains stars soup like write about".split()


def write_texts(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(6, 20))).capitalize() + "." for _ in range(count)]


def share_of(some: np.ndarray, others: np.ndarray) -> float:
    """The share of `some` that are among `others`."""
    return float(np.isin(some, others).mean())


def choose_settings(model: Path) -> DictionarySettings:
    return DictionarySettings(
        model=str(model), latents=64, k=4, tokens=2_000, context=48, epochs=20, batch=128,
        learning_rate=5e-3,
    )  # fmt: skip


def test_activations_are_those_of_the_layer_without_the_first_position(teacher: Path) -> None:
    """The batch changes nothing: a text alone has the activations that it has among others."""
    from transformers import AutoModelForCausalLM

    reader = ActivationReader(str(teacher), 0)
    encoded = reader.encode(write_texts(6, 0))
    found = {}
    for batch in reader.read(encoded):
        for index, place in enumerate(batch.places):
            found[place] = batch.activations[batch.owners == index].float()
    model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.bfloat16)
    for place, text in enumerate(encoded):
        ids = torch.tensor([[1, *text.ids]])  # <|im_start|>, the tokenizer's first token, is before every text
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[1][0, 1:].float()
        assert torch.allclose(found[place], states, atol=0.02 * float(states.abs().max()))


def test_a_dictionary_is_made_resumed_and_read(teacher: Path, tmp_path: Path) -> None:
    texts, settings, out = write_texts(200, 0), choose_settings(teacher), tmp_path / "features"
    seen: list[str] = []

    def stop(message: str) -> None:
        seen.append(message)
        if "training step 20 " in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_dictionary(texts, out, settings, progress=stop)
    assert not out.exists()
    assert locate_work_folder(out).is_dir()
    again: list[str] = []
    record = build_dictionary(texts, out, settings, progress=again.append)
    assert any("tokens read" in message for message in seen)
    assert not any("tokens read" in message or "step 20 " in message for message in again)
    assert not locate_work_folder(out).exists()
    assert record.explained_variance > record.random_explained_variance
    assert 0 <= record.dead_share < 1
    assert json.loads((out / "reader.json").read_text())["hookpoint"] == "layers.0"
    with pytest.raises(UsageError, match="exists already"):
        build_dictionary(texts, out, settings)

    reader = FeatureReader(load_dictionary(out))
    encoded = reader.encode(texts[:5])
    together, alone = reader.pool(encoded).learned, reader.pool(encoded[2:3]).learned
    # bfloat16 rounds differently in another batch, so the weakest of the k latents may differ.
    assert share_of(alone.find_latents(0), together.find_latents(2)) > 0.9
    assert together.count_documents().max() <= 5
    # Where a latent is most active in a text is as active as the pooled value says.
    latent = int(alone.latents[alone.values.argmax()])
    assert reader.locate(encoded[2:3], [latent])[0].max() == pytest.approx(alone.values.max(), rel=1e-3)
    # A text is read as a prefix of itself: truncation changes no earlier activation.
    short = encoded[2]._replace(ids=encoded[2].ids[:4], spans=encoded[2].spans[:4])
    assert share_of(reader.pool([short]).learned.latents, alone.latents) > 0.9


def torch_bytes(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def test_changed_models_and_damaged_dictionaries_are_refused(teacher: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(teacher, tmp_path / "model"))
    out = tmp_path / "features"
    build_dictionary(write_texts(200, 0), out, choose_settings(copy))
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    with pytest.raises(UsageError, match="its files have changed since; make the dictionary again"):
        FeatureReader(load_dictionary(out))
    for file, content in (("cfg.json", b"[]"), ("reader.json", b'{"layer": -1}'), ("sae.safetensors", b"short")):
        whole = (out / file).read_bytes()
        (out / file).write_bytes(content)
        with pytest.raises(UsageError, match="is a damaged feature dictionary"):
            load_dictionary(out)
        (out / file).write_bytes(whole)
    (tmp_path / "layer0.sae.pt").write_bytes(torch_bytes([1]))
    with pytest.raises(UsageError, match="holds no tensors by name"):
        read_published_dictionary(str(tmp_path / "layer0.sae.pt"))
    with pytest.raises(UsageError, match="has layers 0 to 1, not 7"):
        ActivationReader(str(copy), 7)
    with pytest.raises(UsageError, match="3 different texts are too few"):
        build_dictionary(["a", "b", "c", "c"], tmp_path / "few", choose_settings(copy))
