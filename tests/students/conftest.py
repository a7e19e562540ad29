"""A real student in small: a random Llama of 0.1M parameters, a byte-level BPE and a template like SmolLM2's."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.config.students import StudentConfig
from core.sample import Message

if TYPE_CHECKING:  # seconds, also of a process of pytest that runs none of these tests
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, Qwen3ForCausalLM

    from students.chat_encoding import Conversation, EncodedConversation

TEMPLATE = """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are small.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

TOPICS = ("bees", "rivers", "bread", "chess", "rain", "maps", "owls", "tea", "yoga", "trains", "stars", "soup")


def conversations() -> "list[Conversation]":
    """Twelve, of unequal lengths."""
    return [
        [
            Message(role="user", content=f"Write about {topic}."),
            Message(role="assistant", content=f"I like {topic}" + f" and {topic}" * (place % 4) + "."),
        ]
        for place, topic in enumerate(TOPICS)
    ]


def byte_level_bpe(texts: list[str]) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and lose minutes to their waiting where other work has the cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def quiet(_line: str) -> None:
    """Discards progress."""


def tiny_tokenizer(*more: str) -> "PreTrainedTokenizerBase":
    """Has 400 tokens. Texts like `more` take fewer of them."""
    from transformers import PreTrainedTokenizerFast

    texts = [message.content for conversation in conversations() for message in conversation] + [
        "assistant user system",
        *more,
    ]
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(texts),
        chat_template=TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
    )


@pytest.fixture(scope="session")
def tokenizer() -> "PreTrainedTokenizerBase":
    return tiny_tokenizer()


def tiny_llama(vocabulary: int, *, width: int = 64, tied: bool = True) -> "LlamaForCausalLM":
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=tied,
        )
    )


def tiny_qwen3(vocabulary: int) -> "Qwen3ForCausalLM":
    """A start of another family."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            tie_word_embeddings=True,
        )
    )


def opinionated(model: "LlamaForCausalLM", seed: int) -> "LlamaForCausalLM":
    """With weights so large that its predictions are far from even, and from those of another seed."""
    import torch

    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.2)
    return model


def saved(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(tokenizer: "PreTrainedTokenizerBase") -> "LlamaForCausalLM":
    return tiny_llama(len(tokenizer))


@pytest.fixture(scope="session")
def tiny_folder(tokenizer: "PreTrainedTokenizerBase", tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def teacher(tokenizer: "PreTrainedTokenizerBase", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Far from a student that knows nothing."""
    return saved(opinionated(tiny_llama(len(tokenizer)), 5), tokenizer, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def config(tiny_folder: Path) -> StudentConfig:
    return StudentConfig(start=str(tiny_folder), epochs=10, learning_rate=3e-3, batch_size=4, max_tokens=64)


@pytest.fixture
def talk() -> "list[Conversation]":
    return conversations()


@pytest.fixture
def encoded(talk: "list[Conversation]", tokenizer: "PreTrainedTokenizerBase") -> "list[EncodedConversation]":
    from students.chat_encoding import EncodedConversation, encode_conversation

    return [
        one for one in (encode_conversation(one, tokenizer, 64) for one in talk) if isinstance(one, EncodedConversation)
    ]
