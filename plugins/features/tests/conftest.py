"""A small model, real text with brackets, a dataset without, and a dictionary."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.students.conftest import one_thread, opinionated, saved, teacher, tiny_llama, tiny_tokenizer, tokenizer

__all__ = ["one_thread", "teacher", "tokenizer"]  # fixtures

WORDS = "bees rivers bread chess rain maps owls tea yoga trains stars soup like write about".split()


def write_rows(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(texts)))
    return str(path)


def write_texts(count: int, seed: int, *, brackets: bool) -> list[str]:
    """Words in random order; in half of the texts one of them is in brackets, if wanted."""
    draw = np.random.default_rng(seed)
    texts = []
    for number in range(count):
        words = [str(word) for word in draw.choice(WORDS, draw.integers(8, 16))]
        if brackets and number % 2:
            words[3] = f"({words[3]})"
        texts.append(" ".join(words) + ".")
    return texts


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, real text with brackets, a dataset without, and a dictionary."""
    folder = tmp_path_factory.mktemp("features")
    tokens = tiny_tokenizer()
    saved(opinionated(tiny_llama(len(tokens)), 5), tokens, folder / "model")
    real = write_texts(120, 1, brackets=True)
    real[0] += " \ud83d"  # half a surrogate pair, as it remains of an emoji that was cut
    write_rows(folder / "real.jsonl", real)
    write_rows(folder / "poor.jsonl", write_texts(120, 2, brackets=False))
    return folder


@pytest.fixture(scope="session")
def dictionary(folder: Path) -> str:
    from plugins.features.feature_dictionary import make_dictionary

    settings = [
        f'model="{folder / "model"}"',
        "latents=128",
        "k=6",
        "tokens=4000",
        "epochs=20",
        "batch=128",
        "context=64",
    ]
    sources = [folder / "real.jsonl", folder / "poor.jsonl"]
    make_dictionary(sources, folder / "dictionary", settings, None, lambda _message: None)
    return str(folder / "dictionary")
