"""Hybrids: what torch and llama.cpp compute, what padding must not change, and a whole training; each with a control."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, PreTrainedTokenizerBase
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM

from core.config.students import StudentConfig
from plugins.forms.hybrid import build_random_hybrid
from students.chat_encoding import Conversation, find_pad_id, find_stop_ids
from students.generation import sample_texts
from students.gguf_export import export_gguf
from students.training.student_training import train_student
from tests.students.conftest import quiet, saved
from tests.students.test_gguf_export import many_ids
from tests.support.llama_cpp import LlamaCpp, llama_cpp

CHUNK = 64
"""Tokens that transformers' gated delta rule computes at once; longer inputs carry a state from chunk to chunk."""
LENGTHS = (5, 60, 200)


def tiny_hybrid(vocabulary: int, *, width: int = 64, new: bool = False) -> Qwen3_5ForCausalLM:
    """Four layers, the last with attention; unless `new`, with weights far from those of a new model."""
    torch.manual_seed(0)
    model = build_random_hybrid(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=96, num_hidden_layers=4, num_attention_heads=2,
            num_key_value_heads=2, head_dim=width // 2, max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4}, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )
    )  # fmt: skip
    if new:
        return model
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(0.2 * torch.randn_like(weight))
            elif "conv1d" not in name:
                weight.mul_(6)
    return model.train(False)


@pytest.fixture(scope="module")
def hybrid(tokenizer: PreTrainedTokenizerBase) -> Qwen3_5ForCausalLM:
    return tiny_hybrid(len(tokenizer))


@pytest.fixture(scope="module")
def folder(
    hybrid: Qwen3_5ForCausalLM, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return saved(hybrid, tokenizer, tmp_path_factory.mktemp("hybrid"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Iterator[LlamaCpp]:
    with llama_cpp(export_gguf(folder, "f32").path) as server:
        yield server


@pytest.fixture(scope="module")
def ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    found = (many_ids(tokenizer) * 2)[: max(LENGTHS)]
    assert len(found) == max(LENGTHS) > 3 * CHUNK
    return found


@torch.no_grad()
def compute_logits(model: Qwen3_5ForCausalLM, ids: list[int]) -> torch.Tensor:
    """Of every position, of shape (tokens, words)."""
    found: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return found


@torch.no_grad()
def forgetful(model: Qwen3_5ForCausalLM) -> Qwen3_5ForCausalLM:
    """A copy whose memories lose what they have at each token."""
    other = Qwen3_5ForCausalLM(model.config)
    other.load_state_dict(model.state_dict())
    for layer in other.model.layers[:3]:
        layer.linear_attn.dt_bias.fill_(10)
        layer.linear_attn.A_log.fill_(3)
    return other.train(False)


# llama.cpp


@pytest.mark.parametrize("length", LENGTHS)
def test_llama_cpp_computes_what_torch_does(
    length: int, hybrid: Qwen3_5ForCausalLM, loaded: LlamaCpp, ids: list[int]
) -> None:
    theirs = loaded.logprobs(ids[:length], hybrid.config.vocab_size)
    ours, control = (
        compute_logits(model, ids[:length])[-1].log_softmax(-1).numpy() for model in (hybrid, forgetful(hybrid))
    )
    assert np.abs(ours - theirs).max() < 2e-3
    assert np.abs(control - theirs).max() > 0.1, "the memories are read"


# The state of a memory


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 50, CHUNK, 199])
def test_a_state_carried_over_two_calls_equals_one_call(cut: int, hybrid: Qwen3_5ForCausalLM, ids: list[int]) -> None:
    whole = compute_logits(hybrid, ids)[cut:]
    begun = hybrid(input_ids=torch.tensor([ids[:cut]]), use_cache=True)
    rest = hybrid(input_ids=torch.tensor([ids[cut:]]), cache=begun.cache, use_cache=True).logits[0]
    torch.testing.assert_close(rest, whole, atol=2e-4, rtol=0)
    assert (compute_logits(hybrid, ids[cut:]) - whole).abs().max() > 0.1, "without the state it differs"


@torch.no_grad()
def test_a_new_memory_keeps_what_it_reads_for_many_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """The control is what transformers initializes."""
    start = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=32, num_hidden_layers=16, num_attention_heads=16,
        head_dim=8, rope_parameters={"rope_type": "default", "rope_theta": 1e4}, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    new = build_random_hybrid(start)
    theirs = Qwen3_5ForCausalLM(new.config)

    def median_kept(model: Qwen3_5ForCausalLM) -> float:
        """The part of a memory that is left after 10 tokens."""
        memories = [layer.linear_attn for layer in model.model.layers if layer.block_type == "linear_attention"]
        decays = [-memory.A_log.exp() * functional.softplus(memory.dt_bias) for memory in memories]
        return float((10 * torch.cat(decays)).exp().median())

    assert median_kept(new) > 0.3
    assert median_kept(theirs) < 1e-6


# Padding


def test_answers_sampled_in_a_batch_are_those_sampled_alone(
    hybrid: Qwen3_5ForCausalLM, tokenizer: PreTrainedTokenizerBase, ids: list[int]
) -> None:
    """Prompts of unequal lengths are padded on the left. At a temperature near 0 every sample is the likeliest token."""

    def sample(prompts: list[list[int]], pad: int) -> list[tuple[int, ...]]:
        return sample_texts(
            hybrid, [tuple(prompt) for prompt in prompts], stop=find_stop_ids(tokenizer), pad=pad, max_new_tokens=12,
            temperature=1e-3, seed=1,
        )  # fmt: skip

    prompts = [ids[:90], ids[90:97], ids[100:130]]
    pad = find_pad_id(tokenizer)
    alone = [sample([prompt], pad)[0] for prompt in prompts]
    assert len({answer[0] for answer in alone}) > 1
    assert sample(prompts, pad) == alone == sample(prompts, 9), "whatever token the padding is"


# Training


class Interrupted(Exception):
    pass


def test_an_interrupted_training_resumes_to_the_same_weights(
    folder: Path, talk: list[Conversation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StudentConfig(
        start=str(folder), epochs=3, batch_size=4, max_tokens=64, learning_rate=1e-3, checkpoint_steps=2
    )
    record = train_student(talk, config, tmp_path / "one", seed=1, progress=quiet)
    assert record.loss_after < record.loss_before

    def stop(line: str) -> None:
        if "step 5" in line:
            raise Interrupted

    monkeypatch.setattr("students.training.training_loop.PROGRESS_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        train_student(talk, config, tmp_path / "two", seed=1, progress=stop)
    lines: list[str] = []
    train_student(talk, config, tmp_path / "two", seed=1, progress=lines.append)
    assert any("resumes after step 4" in line for line in lines)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.slow
@pytest.mark.xdist_group("embedded")
def test_a_new_hybrid_is_trained_exported_and_answers_in_llama_cpp(talk: list[Conversation], tmp_path: Path) -> None:
    config = StudentConfig(
        start="random", layers=4, hidden_size=64, vocabulary=400, epochs=30, batch_size=4, max_tokens=64, learning_rate=3e-3,
        steps=({"type": "hybrid"},),
    )  # fmt: skip
    record = train_student(talk, config, tmp_path / "student", seed=1, progress=quiet, held_out=talk)
    assert record.loss_after < record.loss_before / 4
    card = (tmp_path / "student" / "README.md").read_text()
    assert "a random hybrid of 4 layers, 1 of them with attention and the others with a memory, 64 wide" in card
    answer = talk[3][1].content
    asked = {"messages": [talk[3][0].model_dump(include={"role", "content"})], "temperature": 0, "max_tokens": 40}
    with llama_cpp(export_gguf(tmp_path / "student", "f32").path) as server:
        reply = server.post("/v1/chat/completions", asked)["choices"][0]["message"]["content"]
    assert reply == answer
