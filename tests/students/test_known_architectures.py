"""Each architecture in llama.cpp and in torch, on inputs longer than its window; with a control that must differ."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3TextConfig,
    GemmaTokenizer,
    GraniteConfig,
    GraniteSWAConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Tokenizer,
    Qwen3Config,
    SmolLM3Config,
)
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.bitnet import BitNetConfig

from core.config.students import StudentConfig
from core.errors import UsageError
from students.chat_encoding import render_chat
from students.gguf_export import export_gguf, read_student
from students.known_architectures import ARCHITECTURES
from students.start_model import load_start_model
from students.training.student_training import train_student
from students.vocabularies import BYTE_TOKENS, TEXT_SPLITS, find_tokenizer_fault
from tests.students.conftest import TEMPLATE, conversations, quiet, saved
from tests.students.test_gguf_export import lowest_correlation
from tests.support.llama_cpp import llama_cpp

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}  # fmt: skip
LLAMA3_POSITIONS = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LONG_POSITIONS = {
    "rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "short_factor": [1.0, 1.5, 2.0, 3.0],
    "long_factor": [1.0, 4.0, 8.0, 16.0],
}  # fmt: skip
GEMMA3_POSITIONS = {
    "full_attention": {"rope_type": "default", "rope_theta": 1e5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
}
WINDOW = 16
TEXTS = [
    "I like bees.",
    "One:\n\n1. two  22 4321 x\t\r\n\n\n   end",
    " Grüße, ¿qué? 日本語 🐝 I'LL don't THEY'RE",
    "def f(x):\n    return x+1  # ok",
]


class Form(NamedTuple):
    """An architecture with settings of its own, and a change of them that is another model with the same weights."""

    config: type[PreTrainedConfig]
    tokenizer: str
    settings: dict[str, Any]
    change: dict[str, Any]
    context: int = 2048


FORMS = {
    "bitnet": Form(BitNetConfig, "dbrx", {"hidden_act": "silu", "tie_word_embeddings": True}, {"rms_norm_eps": 0.1}),
    "llama": Form(LlamaConfig, "llama-bpe", {}, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e3}}),
    "llama with long positions": Form(
        LlamaConfig, "llama-bpe", {"rope_parameters": LLAMA3_POSITIONS},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ),
    "mistral": Form(MistralConfig, "dbrx", {"head_dim": 32, "sliding_window": 512}, {"sliding_window": 32}, 512),
    "qwen2": Form(
        Qwen2Config, "qwen2", {"use_sliding_window": True, "sliding_window": 512, "max_window_layers": 2},
        {"rms_norm_eps": 0.1}, 512,
    ),
    "qwen3": Form(Qwen3Config, "qwen2", {"head_dim": 32, "tie_word_embeddings": False}, {"rms_norm_eps": 0.1}),
    "smollm3": Form(SmolLM3Config, "dbrx", {}, {"no_rope_layers": [1, 1, 1, 1]}),
    "granite": Form(
        GraniteConfig, "smollm",
        {"attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0},
        {"residual_multiplier": 1.0},
    ),
    "granite_swa": Form(
        GraniteSWAConfig, "smollm",
        {
            "attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0,
            "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention", *["sliding_attention"] * 2],
        },
        {"sliding_window": 4096},
    ),
    "gemma3_text": Form(
        Gemma3TextConfig, "gemma",
        {
            "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": WINDOW, "rope_parameters": GEMMA3_POSITIONS,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        {"sliding_window": 4096},
    ),
    "olmo2": Form(Olmo2Config, "dbrx", {"tie_word_embeddings": True}, {"rms_norm_eps": 0.1}),
    "phi3": Form(Phi3Config, "dbrx", {"sliding_window": 512, "tie_word_embeddings": True}, {"sliding_window": 32}, 512),
    "phi3 with long positions": Form(
        Phi3Config, "gpt-4o", {"rope_parameters": LONG_POSITIONS, "original_max_position_embeddings": 1024},
        {"rope_parameters": LONG_POSITIONS | {"short_factor": [1.0] * 4}}, 1024,
    ),
}  # fmt: skip


def splitter(split: str) -> Any:
    """A pre-tokenizer as a model's own tokenizer.json has it; the regular expressions are transformers' own."""
    if split == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(words=True)])
    if split == "qwen2":
        return Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    regex = TEXT_SPLITS["gpt-4o"].steps[0] if split == "gpt-4o" else TikTokenConverter().pattern
    removed = split == "dbrx"  # cl100k_base as tokenizers are converted from tiktoken, and as Llama 3's file has it
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "removed" if removed else "isolated", invert=removed),
            byte_level(words=False),
        ]
    )


def byte_level(*, words: bool) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)


def family_tokenizer(split: str) -> PreTrainedTokenizerBase:
    """Trained on the tests' conversations, and on texts in which merges across words and digits pay."""
    texts = [message.content for talk in conversations() for message in talk] + TEXTS * 4 + ["assistant user system"]
    if split == "gemma":
        return gemma_tokenizer(texts)
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = Qwen2Tokenizer().backend_tokenizer.normalizer if split == "qwen2" else None
    bpe.pre_tokenizer, bpe.decoder = splitter(split), decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    if split == "llama-bpe":
        bpe.model.ignore_merges = True
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, chat_template=TEMPLATE, eos_token="<|endoftext|>", pad_token="<|pad|>"
    )


def gemma_tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
    """As SentencePiece's models are converted: byte tokens, and a merge for each pair of tokens that is a token."""
    bpe = GemmaTokenizer().backend_tokenizer
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=120, special_tokens=special, limit_alphabet=60, show_progress=False)
    )
    whole = json.loads(bpe.to_str())
    vocabulary = whole["model"]["vocab"]
    made = [token for token in vocabulary if token not in special]
    for token in sorted(BYTE_TOKENS):
        vocabulary[token] = len(vocabulary)
    whole["model"]["merges"] = [
        [token[:cut], token[cut:]]
        for token in sorted(made, key=vocabulary.__getitem__)
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    newlines = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    whole["added_tokens"].append({"id": len(vocabulary), "content": "\n\n", **newlines})
    whole["added_tokens"].append({"id": len(vocabulary) + 1, "content": "<image_soft_token>", **newlines})
    template = "{{ bos_token }}" + TEMPLATE.replace("<|im_start|>", "<start_of_turn>").replace(
        "<|im_end|>", "<end_of_turn>"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(whole)), chat_template=template, bos_token="<bos>",
        eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
    )  # fmt: skip


def random_model(form: Form, rows: int, **changes: Any) -> PreTrainedModel:
    """With norms and biases that are not those of a new model."""
    torch.manual_seed(0)
    config = form.config(
        vocab_size=rows, **{**SIZES, **form.settings, **changes}, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    model = ARCHITECTURES[config.model_type].model(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model.train(False)


def many_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer("".join(message.content for talk in conversations() for message in talk))["input_ids"]
    assert len(ids) > 4 * WINDOW
    return ids * 2


@pytest.mark.parametrize("name", FORMS)
def test_llama_cpp_computes_what_torch_does(name: str, tmp_path: Path) -> None:
    form, tokenizer = FORMS[name], family_tokenizer(FORMS[name].tokenizer)
    rows = len(tokenizer) - (form.tokenizer == "gemma")  # without the row of the token of images
    model, other = random_model(form, rows), random_model(form, rows, **form.change)
    other.load_state_dict(model.state_dict())
    folder = tmp_path / form.config.model_type  # llama.cpp has rules for models named phi3
    path = export_gguf(saved(model.bfloat16(), tokenizer, folder), "f32").path
    model, loaded_tokenizer = read_student(folder)
    model.train(False)
    fields = gguf.GGUFReader(path).fields
    assert fields[f"{fields['general.architecture'].contents()}.context_length"].contents() == form.context
    assert fields["tokenizer.ggml.pre"].contents() == ("default" if form.tokenizer == "gemma" else form.tokenizer)
    end = "<end_of_turn>" if form.tokenizer == "gemma" else "<|im_end|>"
    assert fields["tokenizer.ggml.eot_token_id"].contents() == tokenizer.convert_tokens_to_ids(end)
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id
    asked = conversations()[0][:1]
    with llama_cpp(path) as loaded:
        ids = many_ids(tokenizer)
        assert lowest_correlation(model, loaded, ids) > 0.99999  # type: ignore[arg-type]
        assert lowest_correlation(other.float(), loaded, ids) < 0.9999  # type: ignore[arg-type]
        for text in TEXTS:
            assert loaded.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
            assert loaded.tokenize(text) == loaded_tokenizer(text, add_special_tokens=False)["input_ids"]
        rendered = loaded.rendered([message.model_dump() for message in asked])
        assert rendered == render_chat(asked, tokenizer, answer_next=True)


@pytest.mark.parametrize(("name", "vocabulary"), [("qwen3", None), ("gemma3_text", 300)])
def test_a_start_of_another_family_becomes_a_student(name: str, vocabulary: int | None, tmp_path: Path) -> None:
    form, tokenizer = FORMS[name], family_tokenizer(FORMS[name].tokenizer)
    rows = len(tokenizer) - (form.tokenizer == "gemma")
    start = saved(random_model(form, rows).bfloat16(), tokenizer, tmp_path / "start")
    config = StudentConfig(
        start=str(start), vocabulary=vocabulary, epochs=2, batch_size=4, max_tokens=64, learning_rate=1e-3
    )
    record = train_student(conversations(), config, tmp_path / "student", seed=1, progress=quiet)
    assert record.loss_after < record.loss_before
    model, trained = read_student(tmp_path / "student")
    assert model.config.vocab_size == (len(trained) if vocabulary else rows)
    text = conversations()[3][1].content
    with llama_cpp(export_gguf(tmp_path / "student", "f32").path) as loaded:
        assert loaded.tokenize(text) == trained(text, add_special_tokens=False)["input_ids"]
        assert lowest_correlation(model, loaded, many_ids(trained)) > 0.99999  # type: ignore[arg-type]


# What can be no student


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_start_model(StudentConfig(start=str(folder)))
    return str(caught.value)


def test_an_unknown_architecture_is_refused_before_its_weights_are_loaded(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert refusal(tmp_path) == (
        f"student.start: '{tmp_path}' is a 'gpt2'; a student is a bitnet, gemma3_text, granite, granite_swa, llama, mistral, "
        "olmo2, phi3, qwen2, qwen3, qwen3_5_text or smollm3"
    )


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("qwen3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "positions of the type 'yarn'"),
        ("qwen3", {"attention_bias": True}, "biases"),
        ("granite_swa", {"layer_rope_theta": [1e4, 1e4, 0, 1e4]}, "positions that differ between layers"),
        ("granite_swa", {"rope_parameters": LLAMA3_POSITIONS}, "positions of the type 'llama3'"),
        ("bitnet", {"tie_word_embeddings": False}, "an output matrix besides the embedding"),
        ("bitnet", {"hidden_act": "relu2"}, "the activation 'relu2'"),
        ("bitnet", {"head_dim": 32}, "heads whose channels are not its hidden_size"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 0]}, "layers without positions other than every 4th"),
        ("gemma3_text", {"query_pre_attn_scalar": 16}, "attention scaled by 16 instead of its heads' 32 channels"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "`final_logit_softcapping`"),
        (
            "gemma3_text",
            {"layer_types": ["full_attention", *["sliding_attention"] * 3]},
            "windows in other layers than all but every n-th",
        ),
    ],
)  # fmt: skip
def test_settings_that_llama_cpp_ignores_are_refused(
    name: str, changes: dict[str, Any], words: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    FORMS[name].config(**{**SIZES, **FORMS[name].settings, **changes}).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert refusal(tmp_path) == f"student.start: '{tmp_path}' has {words}, which cannot be exported"


def test_a_tokenizer_that_llama_cpp_would_split_otherwise_is_refused() -> None:
    tokenizer = family_tokenizer("qwen2")
    known = ", ".join(TEXT_SPLITS)
    backend = tokenizer.backend_tokenizer
    assert find_tokenizer_fault(tokenizer) is None
    backend.model.ignore_merges = True
    assert str(find_tokenizer_fault(tokenizer)).endswith(
        f"bytes, tokens without merges; only the splits of {known} are supported"
    )
    backend.model.ignore_merges = False
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{N}{1,2}"), "isolated"), byte_level(words=False)]
    )
    assert find_tokenizer_fault(tokenizer) == (
        r"the tokenizer splits texts by \p{N}{1,2}, bytes; only the splits of " + known + " are supported"
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda bpe: bpe["merges"].pop(), "; llama.cpp would"),
        (lambda bpe: bpe["vocab"].pop("<0x0A>"), "the tokenizer has no token for some bytes; llama.cpp needs all 256"),
    ],
)
def test_a_sentencepiece_that_llama_cpp_would_merge_otherwise_is_refused(
    changed: Callable[[dict[str, Any]], Any], words: str
) -> None:
    tokenizer = family_tokenizer("gemma")
    assert find_tokenizer_fault(tokenizer) is None
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    changed(whole["model"])
    broken = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(whole)))
    assert str(find_tokenizer_fault(broken)).endswith(words)
