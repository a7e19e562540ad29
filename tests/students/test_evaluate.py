import math

import pytest
import torch
from transformers import LlamaForCausalLM, MambaConfig, MambaForCausalLM

from students.data import Encoded, batched
from students.evaluate import EVALUATION_BATCH, held_out_loss, keeps_apart, predicted, token_loss
from tests.students.conftest import opinionated


@torch.no_grad()
def by_hand(model: LlamaForCausalLM, one: Encoded) -> float:
    """Nats summed over learned tokens, one conversation and one token at a time."""
    total = 0.0
    for place in range(1, len(one.ids)):
        if one.learned[place]:
            logits = model(torch.tensor([one.ids[:place]])).logits[0, -1]
            total -= logits.log_softmax(0)[one.ids[place]].item()
    return total


def test_the_loss_is_that_of_the_next_token_over_the_assistants_tokens_only(
    model: LlamaForCausalLM, encoded: list[Encoded]
) -> None:
    loss = token_loss(model, batched(encoded[:4], pad=0))
    assert loss.tokens == sum(sum(one.learned) for one in encoded[:4])
    assert loss.total.item() == pytest.approx(sum(by_hand(model, one) for one in encoded[:4]), rel=1e-5)


def test_padding_changes_no_loss(model: LlamaForCausalLM, encoded: list[Encoded]) -> None:
    alone = [token_loss(model, batched([one], pad=0)) for one in encoded]
    for pad in (0, 2, 100):
        together = token_loss(model, batched(encoded, pad))
        assert together.tokens == sum(loss.tokens for loss in alone)
        assert together.total.item() == pytest.approx(sum(loss.total.item() for loss in alone), rel=1e-5)


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary(
    model: LlamaForCausalLM, encoded: list[Encoded]
) -> None:
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    assert held_out_loss(model, encoded, pad=0) == pytest.approx(math.log(model.config.vocab_size), rel=1e-6)


def test_held_out_loss_weighs_every_token_the_same_whatever_its_batch(
    model: LlamaForCausalLM, encoded: list[Encoded]
) -> None:
    assert len(encoded) % EVALUATION_BATCH, "the last batch has to be a smaller one"
    sizes = {sum(one.learned) for one in encoded}
    assert len(sizes) > 1, "the conversations have to be of unequal lengths"
    expected = sum(by_hand(model, one) for one in encoded) / sum(sum(one.learned) for one in encoded)
    assert held_out_loss(model, encoded, pad=0) == pytest.approx(expected, rel=1e-5)
    assert held_out_loss(model, encoded[::-1], pad=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(training: bool, model: LlamaForCausalLM, encoded: list[Encoded]) -> None:
    model.train(training)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    held_out_loss(model, encoded, pad=0)
    assert model.training is training
    assert all(weight.grad is None and weight.equal(before[name]) for name, weight in model.named_parameters())


def test_packed_conversations_are_what_they_are_alone_and_in_their_order(
    model: LlamaForCausalLM, encoded: list[Encoded]
) -> None:
    opinionated(model, 3)
    batch = batched(encoded, pad=0, packed_to=90)
    assert 1 < len(batch.ids) < len(encoded)
    together = predicted(model, batch, hidden=True)
    alone = [predicted(model, batched([one], pad=0), hidden=True) for one in encoded]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(together.hidden[-1], torch.cat([one.hidden[-1] for one in alone]), atol=1e-4, rtol=1e-5)
    assert together.targets.equal(torch.cat([one.targets for one in alone]))
    assert together.rows.tolist() == [place for place, one in enumerate(alone) for _ in one.targets]


def test_a_model_that_carries_a_state_does_not_keep_packed_conversations_apart(
    model: LlamaForCausalLM, encoded: list[Encoded]
) -> None:
    assert keeps_apart(model, encoded[:2], pad=0)
    state = MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, state_size=4))
    assert not keeps_apart(state, encoded[:2], pad=0)
