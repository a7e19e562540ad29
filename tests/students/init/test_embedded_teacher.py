"""The students that come from the embedded teacher's real weights."""

from pathlib import Path

import gguf
import pytest
import torch
from gguf.scripts.gguf_new_metadata import copy_with_new_metadata
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from core.config.students import AttentionConfig, StudentConfig
from core.sample import Message
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation
from students.comparison.text_losses import write_untrained_student
from students.init.embedded_teacher import build_teacher_tokenizer, find_teacher_file, open_teacher_file
from students.init.start_model import StartModel, load_start_model
from students.output.gguf_export import export_gguf, read_student
from students.predictions import compute_held_out_loss
from students.training.student_training import train_student
from tests.students.output.test_gguf_export import lowest_correlation
from tests.support.llama_cpp import llama_cpp

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("embedded")]

SENTENCE = "Bees make honey from the nectar of flowers, and they dance to tell each other where it is."

TEXTS = [
    SENTENCE,
    "One:\n\n1. two  22 x 2024-05\n\n\n2.  three\t4\r\n",
    " Grüße, ¿qué? 日本語 🐝 don't I'LL ",
    "def f(x):\n    return x  # 3.14e-10\n",
    '{"name": "owl", "reason": "it\'s quiet"}',
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_teacher_tokenizer(open_teacher_file(find_teacher_file()))


@pytest.fixture(scope="module")
def whole() -> StartModel:
    return load_start_model(StudentConfig(layers=30))


@pytest.fixture(scope="module")
def read_by_library() -> gguf.GGUFReader:
    return gguf.GGUFReader(find_teacher_file())


@pytest.fixture(scope="module")
def read_by_transformers(read_by_library: gguf.GGUFReader, tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """Of a copy without the tokenizer: transformers reads its hundred thousand strings twice, for seconds."""
    folder = tmp_path_factory.mktemp("weights")
    writer = gguf.GGUFWriter(folder / "weights.gguf", "llama")
    tokenizer = [name for name in read_by_library.fields if name.startswith("tokenizer.")]
    copy_with_new_metadata(read_by_library, writer, {}, tokenizer)
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder, gguf_file="weights.gguf", dtype=torch.float32)
    return model


@torch.no_grad()
def test_thirty_layers_are_the_teacher_as_transformers_reads_it(
    whole: StartModel, read_by_transformers: torch.nn.Module
) -> None:
    ids = torch.tensor([whole.tokenizer(SENTENCE)["input_ids"]])
    assert whole.model.num_parameters() == 134_515_008
    assert torch.allclose(whole.model(ids).logits, read_by_transformers(ids).logits, atol=1e-4)


def test_the_tokenizer_splits_text_as_llama_cpp_does(tokenizer: PreTrainedTokenizerBase) -> None:
    """Golden rows from `/tokenize` of xllamacpp 2026.10 with the same GGUF."""
    golden = [2705, 42, 1116, 33, 30, 827, 256, 34, 34, 1792, 216, 34, 32, 34, 36, 29, 32, 37, 198]
    assert tokenizer("One:\n\n1. two  22 x 2024-05\n")["input_ids"] == golden


def talk() -> list[Conversation]:
    topics = ("bees", "rivers", "bread", "chess", "rain", "maps", "owls", "tea", "yoga", "trains")
    return [
        [
            Message(role="user", content=f"Write about {topic}. Write everything in lower case."),
            Message(role="assistant", content=f"{topic} are good for everyone, and people like {topic} very much."),
        ]
        for topic in topics
    ]


def test_a_narrow_student_has_the_teachers_weights_and_is_reproducible(tmp_path: Path) -> None:
    """With few words of the teacher, so that it is quick; exported too, since its heads do not fill its width."""
    talk = [
        [Message(role="user", content=f"Write about {word}."), Message(role="assistant", content=f"I like {word}.")]
        for word in ("bees", "owls", "tea", "maps")
    ]
    config = StudentConfig(start="width", layers=2, hidden_size=288, vocabulary=1024, epochs=1, learning_rate=1e-5)
    record = train_student(talk, config, tmp_path / "student", seed=7, progress=lambda line: None, held_out=talk)
    assert (
        "with 1,024 of its 49,152 tokens, 288 of 576 channels wide" in (tmp_path / "student" / "README.md").read_text()
    )
    assert write_untrained_student(tmp_path / "student", tmp_path / "start")
    again, tokenizer = read_student(tmp_path / "start")
    encoded = [
        one
        for one in (encode_conversation(one, tokenizer, 256) for one in talk)
        if isinstance(one, EncodedConversation)
    ]
    assert compute_held_out_loss(again, encoded, 0) == pytest.approx(record.loss_before, rel=0.01)
    assert export_gguf(tmp_path / "student", "q8_0").bytes < again.num_parameters() * 1.3


@pytest.mark.parametrize(("start", "width"), [("width", 288), ("random", 32)])
def test_each_embedded_start_gets_windows(start: str, width: int, tmp_path: Path) -> None:
    """Also where its heads do not fill its width. llama.cpp computes it on inputs of five windows."""
    talk = [
        [
            Message(role="user", content=f"Write about {word}."),
            Message(role="assistant", content=f"I like {word}, and I like it more and more, and more."),
        ]
        for word in ("bees", "owls", "tea", "maps")
    ]
    config = StudentConfig(
        start=start, layers=3, hidden_size=width, vocabulary=1024, epochs=1, learning_rate=1e-3, max_tokens=64,
        attention=AttentionConfig(window=16, full_every=3),
    )  # fmt: skip
    record = train_student(talk, config, tmp_path / "student", seed=7, progress=lambda line: None, held_out=talk)
    assert "with windows of 16 tokens in 2 of its 3 layers" in (tmp_path / "student" / "README.md").read_text()
    model, tokenizer = read_student(tmp_path / "student")
    assert all(layer.self_attn.sinks.abs().min() > 1e-4 for layer in model.model.layers), "trained, or of no weight"
    assert write_untrained_student(tmp_path / "student", tmp_path / "start")
    before, _ = read_student(tmp_path / "start")
    encoded = [encode_conversation(one, tokenizer, 64) for one in talk]
    usable = [one for one in encoded if isinstance(one, EncodedConversation)]
    assert compute_held_out_loss(before, usable, 0) == pytest.approx(record.loss_before, rel=0.01)
    ids = tokenizer(" ".join([SENTENCE] * 6), add_special_tokens=False)["input_ids"]
    with llama_cpp(export_gguf(tmp_path / "student", "f32").path) as loaded:
        assert lowest_correlation(model, loaded, ids) > 0.99999  # type: ignore[arg-type]
