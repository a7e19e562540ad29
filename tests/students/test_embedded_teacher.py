"""The students that come from the embedded teacher's real weights."""

import gguf
import pytest
import torch
from gguf.scripts.gguf_new_metadata import copy_with_new_metadata
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from core.config.students import StudentConfig
from core.sample import Message
from students.chat_encoding import Conversation
from students.embedded_teacher import build_teacher_tokenizer, find_teacher_file, open_teacher_file
from students.start_model import StartModel, load_start_model

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("embedded")]

SENTENCE = "Bees make honey from the nectar of flowers, and they dance to tell each other where it is."


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
