import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.errors import UsageError
from students.chat_encoding import find_stop_ids
from students.gguf_export import GGUF_FORMS, ExportedStudent, export_gguf
from tests.students.conftest import TEMPLATE, conversations, saved, tiny_llama
from tests.support.llama_cpp import LlamaCpp, llama_cpp

FULL_FORMS = tuple(form for form in GGUF_FORMS if form != "tq2_0")
GREEDY = 200
PREFIXES = range(1, 100, 9)

TEXTS = [
    "I like bees.",
    "One:\n\n1. two  22 x\t\r\n\n\n",
    " Grüße, ¿qué? 日本語 🐝 I'LL don't",
    "<|im_start|>user\nhi<|im_end|>",
]


def talkative(vocabulary: int) -> LlamaForCausalLM:
    """Random, with weights large enough that it does not say one token for ever."""
    model = tiny_llama(vocabulary)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight *= 8
    return model


@pytest.fixture(scope="module")
def student(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(talkative(len(tokenizer)), tokenizer, tmp_path_factory.mktemp("run") / "student")


@pytest.fixture(scope="module")
def exported(student: Path) -> dict[str, ExportedStudent]:
    return {form: export_gguf(student, form) for form in FULL_FORMS}


@pytest.fixture(scope="module")
def precise(exported: dict[str, ExportedStudent]) -> Iterator[LlamaCpp]:
    with llama_cpp(exported["f32"].path) as loaded:
        yield loaded


@torch.no_grad()
def logits(model: LlamaForCausalLM, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids])).logits[0]


def many_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer("".join(message.content for talk in conversations() for message in talk))["input_ids"]
    assert len(ids) >= PREFIXES[-1]
    return ids


def lowest_correlation(model: LlamaForCausalLM, loaded: LlamaCpp, ids: list[int]) -> float:
    """Of a position's logits in torch and in llama.cpp; their logarithms of probabilities differ from them by a constant."""
    ours = logits(model, ids).numpy()
    return min(np.corrcoef(ours[n - 1], loaded.logprobs(ids[:n], ours.shape[1]))[0, 1] for n in PREFIXES)


def test_llama_cpp_computes_what_torch_does(
    student: Path, tokenizer: PreTrainedTokenizerBase, precise: LlamaCpp
) -> None:
    model = LlamaForCausalLM.from_pretrained(student)
    prompt = tokenizer("Write about bees.")["input_ids"]
    answer = precise.greedy(prompt, GREEDY)
    expected = logits(model, [*prompt, *answer])[len(prompt) - 1 : -1]
    expected[:, find_stop_ids(tokenizer)] = -torch.inf
    assert len(set(answer)) > 50, "a model that repeats itself shows nothing"
    assert answer == expected.argmax(1).tolist()
    assert lowest_correlation(model, precise, [*prompt, *answer]) > 0.999999


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_tokenized_as_in_transformers(
    text: str, tokenizer: PreTrainedTokenizerBase, precise: LlamaCpp
) -> None:
    assert precise.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


# What cannot be exported


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention_bias": True}, "has biases, which cannot be exported"),
        ({"hidden_act": "gelu"}, "has the activation 'gelu'"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "has positions of the type 'linear'",
        ),
    ],
)
def test_a_llama_with_unsupported_features_is_refused(
    changed: dict[str, Any], message: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = tiny_llama(len(tokenizer))
    model.config.update(changed)
    saved(model, tokenizer, tmp_path)
    with pytest.raises(UsageError, match=message):
        export_gguf(tmp_path, "f16")


@pytest.mark.parametrize(
    ("form", "digest"),
    [
        ("f32", "f3b1239597d32b779fe3508c36f0f633b17c4ee44fa95af541fce4fb5db70fd2"),
        ("q4_0", "2f6c9ca90f8de5b16c158c86af4c6d50041c5328f9dfcbd7b3529e3f4050cedc"),
    ],
)
def test_a_llamas_file_is_that_of_earlier_versions(form: str, digest: str, tmp_path: Path) -> None:
    """Byte for byte; the digests are of the version before students had other architectures."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|pad|>", "<|im_start|>", "<|im_end|>", *letters, "th", "the"]
    bpe = Tokenizer(models.BPE({token: row for row, token in enumerate(tokens)}, [("t", "h"), ("th", "e")]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.add_special_tokens(tokens[:3])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        chat_template=TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
    )
    model = tiny_llama(len(tokenizer) + 3, tied=False)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.arange(weight.numel()).remainder(251).sub(125).div(64).view_as(weight))
    path = export_gguf(saved(model, tokenizer, tmp_path / "student"), form).path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_a_tokenizer_unknown_to_llama_cpp_is_refused_without_a_partial_file(student: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student)
    LlamaForCausalLM.from_pretrained(student).save_pretrained(tmp_path)
    before = tokenizer.backend_tokenizer.pre_tokenizer
    split = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), before])
    for changed, message in (
        ({"pre_tokenizer": split}, "splits texts by Punctuation, ByteLevel; only the splits of gpt-2, smollm, "),
        ({"pre_tokenizer": before, "normalizer": normalizers.NFC()}, "not a byte-level BPE without a normalizer"),
    ):
        for name, value in changed.items():
            setattr(tokenizer.backend_tokenizer, name, value)
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(UsageError, match=message):
            export_gguf(tmp_path, "f16")
    assert not list(tmp_path.glob("*gguf*"))
