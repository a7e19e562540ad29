import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from students.chat_encoding import Conversation, EncodedConversation, encode_conversation
from students.init.layer_pruning import find_removal_order
from students.predictions import compute_token_loss
from students.token_batches import TokenBatch, build_batch


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
