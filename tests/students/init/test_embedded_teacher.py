"""The students that come from the embedded teacher's real weights."""

from pathlib import Path

import gguf
import pytest
import torch
from gguf.scripts.gguf_new_metadata import copy_with_new_metadata
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from core.config.students import AttentionConfig, StudentConfig
from core.sample import Message
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation, find_stop_ids
from students.comparison.text_losses import write_untrained_student
from students.init.embedded_teacher import build_teacher_tokenizer, find_teacher_file, open_teacher_file
from students.init.start_model import StartModel, load_start_model
from students.init.vocabulary_trimming import trim_vocabulary
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


def test_a_student_of_8192_tokens_exports_to_a_small_file_with_the_same_tokenization(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    data = [
        one
        for one in (encode_conversation(one, tokenizer, 256) for one in talk())
        if isinstance(one, EncodedConversation)
    ]
    start = load_start_model(StudentConfig(start="random", layers=6, hidden_size=256))
    small = trim_vocabulary(start, data, 8192)
    words = {token: row for token, row in small.tokenizer.get_vocab().items() if row > 16}
    assert len(small.tokenizer) == 8192
    bpe = small.tokenizer.backend_tokenizer.model
    assert all([piece.id for piece in bpe.tokenize(token)] == [row] for token, row in words.items())
    small.model.save_pretrained(tmp_path)
    small.tokenizer.save_pretrained(tmp_path)
    exported = export_gguf(tmp_path, "q8_0")
    assert 6.5e6 < exported.parameters < 7e6
    assert exported.bytes < 8e6
    types = {tensor.tensor_type.name for tensor in gguf.GGUFReader(exported.path).tensors}
    assert types == {"F32", "Q8_0"}
    with llama_cpp(exported.path) as loaded:
        for text in TEXTS:
            ids = small.tokenizer(text)["input_ids"]
            assert loaded.tokenize(text) == ids
            assert small.tokenizer.decode(ids) == text


def talk() -> list[Conversation]:
    topics = ("bees", "rivers", "bread", "chess", "rain", "maps", "owls", "tea", "yoga", "trains")
    return [
        [
            Message(role="user", content=f"Write about {topic}. Write everything in lower case."),
            Message(role="assistant", content=f"{topic} are good for everyone, and people like {topic} very much."),
        ]
        for topic in topics
    ]


def test_the_default_system_message_is_the_same_in_training_and_generation(tokenizer: PreTrainedTokenizerBase) -> None:
    one = encode_conversation(talk()[0], tokenizer, 256)
    assert isinstance(one, EncodedConversation)
    asked = [talk()[0][0].model_dump()]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert list(one.ids[: len(prompt)]) == prompt
    assert "named SmolLM" in tokenizer.decode(prompt)
    learned = [token for token, mark in zip(one.ids, one.learned, strict=True) if mark]
    assert tokenizer.decode(learned) == talk()[0][1].content + "<|im_end|>"
    assert find_stop_ids(tokenizer) == [tokenizer.eos_token_id] == [2]


def test_the_embedded_teacher_answers_plausibly(whole: StartModel) -> None:
    """Far above 4 nats a token, something would be wrong with weights, template or marks."""
    encoded = [
        one
        for one in (encode_conversation(one, whole.tokenizer, 256) for one in talk())
        if isinstance(one, EncodedConversation)
    ]
    assert 1 < compute_held_out_loss(whole.model, encoded, 2) < 4


def test_a_student_of_four_layers_learns_and_answers(tmp_path: Path) -> None:
    config = StudentConfig(layers=4, epochs=4, batch_size=4)
    record = train_student(talk(), config, tmp_path / "student", seed=7, progress=print)
    assert record.loss_after < record.loss_before - 5
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    prompt = tokenizer.apply_chat_template(
        [talk()[0][0].model_dump()], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=30)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True).strip()
    assert "license: apache-2.0\nbase_model: HuggingFaceTB/" in (tmp_path / "student" / "README.md").read_text()


def test_captured_signals_of_the_embedded_teacher_reduce_the_distance_to_it(tmp_path: Path) -> None:
    settings = {
        "layers": 4,
        "epochs": 1,
        "batch_size": 3,
        "objective": {"sft": 0.5, "forward_kl": 0.5},
        "max_tokens": 64,
    }
    topics = ("bees", "rivers", "bread", "chess", "rain", "maps")
    talk: list[Conversation] = [
        [Message(role="user", content=f"Write about {topic}."), Message(role="assistant", content=SENTENCE)]
        for topic in topics
    ]
    for kind in ("top_k", "sampled"):
        config = StudentConfig.model_validate({**settings, "distillation": {"signals": kind}})
        lines: list[str] = []
        record = train_student(talk, config, tmp_path / kind, seed=7, progress=lines.append)
        assert record.kl_before is not None
        assert record.kl_after is not None
        assert record.kl_after < record.kl_before
        line = next(text for text in lines if "bytes per token" in text)
        assert float(line.split(" bytes per token")[0].split()[-1]) < 45
    assert "embedded (sampled)" in (tmp_path / "sampled" / "README.md").read_text()


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
