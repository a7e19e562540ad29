import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from benchmarks.layer_pruning import find_removal_order
from core.config.students import StudentConfig
from core.errors import UsageError
from plugins.forms.width import KeptParts, choose_most_active, narrow_model
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation
from students.predictions import TokenBatch, build_batch, compute_held_out_loss, compute_token_loss, predict_tokens
from students.start_model import REMOVAL_ORDER, TEACHER_LAYERS, load_start_model, select_best_layers
from tests.students.conftest import opinionated, tiny_llama


@pytest.fixture
def wide(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Four groups of two heads of 16."""
    torch.manual_seed(0)
    settings = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16, "intermediate_size": 128}
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, tie_word_embeddings=True, **settings
        )
    )


def test_inactive_parts_are_removed_first_without_loss(
    wide: LlamaForCausalLM, encoded: list[EncodedConversation]
) -> None:
    """Half of the channels, neurons and groups are silent; without them the model says the same."""
    opinionated(wide, 3)
    kept = KeptParts(
        sorted(torch.randperm(64)[:32].tolist()),
        [sorted(torch.randperm(128)[:64].tolist()) for _ in range(2)],
        [[0, 2], [1, 3]],
    )
    silence(wide, kept)
    batch = build_batch(encoded, 0)
    found = choose_most_active(wide, batch, 32)
    assert found == kept
    narrow = narrow_model(wide, found)
    assert (narrow.config.hidden_size, narrow.config.intermediate_size) == (32, 64)
    assert (narrow.config.num_attention_heads, narrow.config.num_key_value_heads) == (4, 2)
    # A norm divides by the mean square over all channels, and half of them were zero.
    with torch.no_grad():
        for name, weight in narrow.named_parameters():
            if "norm" in name:
                weight.mul_(2**0.5)
    for one in (wide, narrow):
        one.train(False)
    torch.testing.assert_close(
        predict_tokens(narrow, batch).logits, predict_tokens(wide, batch).logits, atol=1e-3, rtol=1e-4
    )


@torch.no_grad()
def silence(model: LlamaForCausalLM, kept: KeptParts) -> None:
    """Make everything else zero where it comes from."""
    others = [channel for channel in range(64) if channel not in kept.channels]
    model.model.embed_tokens.weight[:, others] = 0
    for layer, neurons, groups in zip(model.model.layers, kept.neurons, kept.groups, strict=True):
        layer.self_attn.o_proj.weight[others] = 0
        layer.mlp.down_proj.weight[others] = 0
        layer.mlp.up_proj.weight[[neuron for neuron in range(128) if neuron not in neurons]] = 0
        for group in set(range(4)) - set(groups):
            layer.self_attn.v_proj.weight[group * 16 : (group + 1) * 16] = 0


def test_a_narrowed_model_starts_better_than_a_random_one(
    encoded: list[EncodedConversation], tokenizer: PreTrainedTokenizerBase
) -> None:
    model = tiny_llama(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = build_batch(encoded, 0)
    for _ in range(30):
        predictions = predict_tokens(model, batch)
        torch.nn.functional.cross_entropy(predictions.logits, predictions.targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    narrow = narrow_model(model, choose_most_active(model, batch, 48))
    random = LlamaForCausalLM(narrow.config)
    assert compute_held_out_loss(narrow, encoded, 0) < compute_held_out_loss(random, encoded, 0) - 0.5


@pytest.fixture
def batch(talk: list[Conversation], tokenizer: PreTrainedTokenizerBase) -> TokenBatch:
    encoded = [encode_conversation(one, tokenizer, 64) for one in talk]
    return build_batch([one for one in encoded if isinstance(one, EncodedConversation)], pad=0)


@pytest.fixture
def five_layers(tokenizer: PreTrainedTokenizerBase, batch: TokenBatch) -> LlamaForCausalLM:
    """Trained a little, so that every layer has its part, but for layer 3, which only passes on what it is given."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=5,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    for part in (model.model.layers[3].self_attn.o_proj, model.model.layers[3].mlp.down_proj):
        torch.nn.init.zeros_(part.weight).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        compute_token_loss(model, batch).mean.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_a_layer_without_effect_is_removed_first_at_no_cost(five_layers: LlamaForCausalLM, batch: TokenBatch) -> None:
    whole = compute_token_loss(five_layers, batch).mean.item()
    first, second, _ = find_removal_order(five_layers, batch)
    assert first.layer == 3
    assert first.loss == pytest.approx(whole, abs=0.01)
    assert second.loss > first.loss


def test_first_and_last_layer_stay_and_the_model_is_restored(five_layers: LlamaForCausalLM, batch: TokenBatch) -> None:
    before = compute_token_loss(five_layers, batch).mean.item()
    assert sorted(removal.layer for removal in find_removal_order(five_layers, batch)) == [1, 2, 3]
    assert five_layers.config.num_hidden_layers == 5
    assert compute_token_loss(five_layers, batch).mean.item() == before


def test_each_layer_is_removed_once_and_the_first_stays() -> None:
    assert sorted([0, *REMOVAL_ORDER]) == list(range(TEACHER_LAYERS))
    for count in range(1, TEACHER_LAYERS + 1):
        layers = select_best_layers(count)
        assert layers == sorted(set(layers))
        assert (len(layers), layers[0]) == (count, 0)


@pytest.mark.parametrize(("answers", "why"), [(False, "cannot be reached"), (True, "does not answer within 0.2 s")])
def test_an_unreachable_hub_is_named_within_seconds(
    answers: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`answers`: it takes the connection and is silent from then on. The hub's own client would try for over a minute."""
    with socket.socket() as hub:
        hub.bind(("127.0.0.1", 0))
        if answers:
            hub.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0.2")
        with pytest.raises(
            UsageError, match=rf"'some/model' is neither a folder .* {why} .*name the folder .*HF_HUB_OFFLINE=1"
        ):
            load_start_model(StudentConfig(start="some/model"))
