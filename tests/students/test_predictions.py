import copy
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from core.config.students import StudentConfig
from students.chat_encoding import (
    Conversation,
    EncodedConversation,
    UnusableReason,
    encode_conversation,
    encode_untruncated,
    find_pad_id,
)
from students.comparison import measure_text_loss
from students.gguf_export import read_student
from students.predictions import (
    EVALUATION_BATCH,
    IGNORED_LABEL,
    TokenPredictions,
    build_batch,
    compute_held_out_loss,
    compute_token_loss,
    find_distinct_tokens,
    is_tokenwise,
    predict_tokens,
    round_weights,
)
from students.training_data import encode_and_split
from tests.students.conftest import conversations, opinionated, saved, tiny_llama
from tests.students.test_chat_encoding import CONVERSATIONS, encoded
from tests.students.test_known_architectures import FORMS, random_model


@torch.no_grad()
def by_hand(model: LlamaForCausalLM, one: EncodedConversation) -> float:
    """Nats summed over learned tokens, one conversation and one token at a time."""
    total = 0.0
    for place in range(1, len(one.ids)):
        if one.learned[place]:
            logits = model(torch.tensor([one.ids[:place]])).logits[0, -1]
            total -= logits.log_softmax(0)[one.ids[place]].item()
    return total


def test_the_loss_is_that_of_the_next_token_over_the_assistants_tokens_only(
    model: LlamaForCausalLM, encoded: list[EncodedConversation]
) -> None:
    loss = compute_token_loss(model, build_batch(encoded[:4], pad=0))
    assert loss.tokens == sum(sum(one.learned) for one in encoded[:4])
    assert loss.total.item() == pytest.approx(sum(by_hand(model, one) for one in encoded[:4]), rel=1e-5)


def test_padding_changes_no_loss(model: LlamaForCausalLM, encoded: list[EncodedConversation]) -> None:
    alone = [compute_token_loss(model, build_batch([one], pad=0)) for one in encoded]
    for pad in (0, 2, 100):
        together = compute_token_loss(model, build_batch(encoded, pad))
        assert together.tokens == sum(loss.tokens for loss in alone)
        assert together.total.item() == pytest.approx(sum(loss.total.item() for loss in alone), rel=1e-5)


def test_held_out_loss_gives_every_token_the_same_weight(
    model: LlamaForCausalLM, encoded: list[EncodedConversation]
) -> None:
    assert len(encoded) % EVALUATION_BATCH, "the last batch has to be a smaller one"
    sizes = {sum(one.learned) for one in encoded}
    assert len(sizes) > 1, "the conversations have to be of unequal lengths"
    expected = sum(by_hand(model, one) for one in encoded) / sum(sum(one.learned) for one in encoded)
    assert compute_held_out_loss(model, encoded, pad=0) == pytest.approx(expected, rel=1e-5)
    assert compute_held_out_loss(model, encoded[::-1], pad=0) == pytest.approx(expected, rel=1e-5)


def test_a_long_conversation_is_measured_on_the_tokens_of_training(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    talks = conversations()
    sizes = [
        len(whole.ids)
        for talk in talks
        if isinstance(whole := encode_untruncated(talk, tokenizer), EncodedConversation)
    ]
    most = sorted(sizes)[len(sizes) // 2]
    config = StudentConfig(max_tokens=most)
    seen = encode_and_split(talks[1:], talks[:1], tokenizer, config, 7)
    cut = [one for talk in talks if isinstance(one := encode_conversation(talk, tokenizer, most), EncodedConversation)]
    found = measure_text_loss(opinionated(model, 1), tokenizer, talks, most)
    assert seen.truncation
    assert 0 < found.truncated == seen.truncation.truncated < len(talks)
    assert (found.conversations, found.tokens) == (len(cut), sum(sum(one.learned) for one in cut))
    assert found.nats_per_token
    assert found.nats_per_token == pytest.approx(compute_held_out_loss(model, cut, pad=0), rel=1e-6)
    size = sum(
        len(
            tokenizer.decode(
                [id for id, mark in zip(one.ids, one.learned, strict=True) if mark], skip_special_tokens=True
            ).encode()
        )
        for one in cut
    )
    assert found.bits_per_byte == pytest.approx(found.nats_per_token * found.tokens / size / math.log(2), rel=1e-6)
    whole = measure_text_loss(model, tokenizer, talks, max(sizes))
    assert (whole.truncated, whole.conversations) == (0, len(talks))
    none = measure_text_loss(model, tokenizer, talks, 16)
    assert (none.nats_per_token, none.left_out) == (None, {UnusableReason.beyond_max_tokens: len(talks)}), (
        "no answer begins so early"
    )


@pytest.mark.parametrize("name", ["granite", "llama", "olmo2", "qwen3", "smollm3"])
def test_rows_that_begin_alike_are_read_once(name: str, encoded: list[EncodedConversation]) -> None:
    """To the same predictions and gradients as row by row, which another attention function gets."""
    model = random_model(FORMS[name], 400)
    changed = encoded[0]._replace(ids=(*encoded[0].ids[:-2], 7, 8))
    batch = build_batch([*encoded[:3], changed, encoded[0]], pad=0)
    sizes = [len(one.ids) for one in encoded[:3]]
    assert find_distinct_tokens(batch.ids, batch.attention).ids.shape[1] <= sum(sizes) + 2

    def learn() -> tuple[TokenPredictions, list[torch.Tensor]]:
        model.zero_grad()
        predictions = predict_tokens(model, batch, hidden=True, last=True)
        functional.cross_entropy(predictions.logits, predictions.targets).backward()  # type: ignore[no-untyped-call]
        return predictions, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    assert is_tokenwise(model)
    together, gradients = learn()
    model.set_attn_implementation("eager")
    assert not is_tokenwise(model)
    apart, others = learn()
    assert together.targets.equal(apart.targets)
    for one, other in zip([together.logits, *together.hidden], [apart.logits, *apart.hidden], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
    assert together.last is not None
    assert apart.last is not None
    tokens = batch.attention.bool()
    torch.testing.assert_close(together.last[tokens], apart.last[tokens], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["mistral", "qwen2", "gemma3_text", "bitnet"])
def test_models_that_combine_tokens_otherwise_read_rows(name: str) -> None:
    assert not is_tokenwise(random_model(FORMS[name], 100))


def test_rounded_weights_have_exactly_the_loss_of_the_stored_ones(
    talk: list[Conversation], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = opinionated(tiny_llama(len(tokenizer)), 1)
    stored, _ = read_student(saved(copy.deepcopy(model).bfloat16(), tokenizer, tmp_path))
    encoded = [encode_conversation(conversation, tokenizer, 256) for conversation in talk]
    used = [one for one in encoded if isinstance(one, EncodedConversation)]
    round_weights(model)
    losses = [compute_held_out_loss(one, used, find_pad_id(tokenizer)) for one in (model, stored)]
    assert losses[0] == losses[1]


def test_padding_is_neither_attended_to_nor_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    ones = [encoded(CONVERSATIONS[name], tokenizer) for name in ("one turn", "two turns")]
    batch = build_batch(ones, pad=2)
    assert batch.ids.shape == (2, max(len(one.ids) for one in ones))
    for row, one in enumerate(ones):
        size = len(one.ids)
        assert batch.ids[row, :size].tolist() == list(one.ids)
        assert batch.attention[row].tolist() == [1] * size + [0] * (batch.ids.shape[1] - size)
        labels = [token if learned else IGNORED_LABEL for token, learned in zip(one.ids, one.learned, strict=True)]
        assert batch.labels[row].tolist() == labels + [IGNORED_LABEL] * (batch.ids.shape[1] - size)
