import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from students.chat_encoding import EncodedConversation
from students.init.width_pruning import KeptParts, choose_most_active, narrow_model
from students.predictions import compute_held_out_loss, predict_tokens
from students.token_batches import build_batch
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
