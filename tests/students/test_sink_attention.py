from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GraniteSWAConfig, GraniteSWAForCausalLM

from students.architecture import list_layer_types
from students.known_architectures import SINK_ATTENTION, build_mask_with_sink
from tests.students.conftest import opinionated

LENGTH, PADS = 70, 9
LEFT, RIGHT = torch.ones(2, LENGTH, dtype=torch.long), torch.ones(2, LENGTH, dtype=torch.long)
LEFT[0, :PADS], RIGHT[1, -PADS:] = 0, 0
PACKED = torch.cat([torch.arange(size) for size in (11, LENGTH - 31, 20)])[None].expand(2, -1)


@pytest.fixture(params=[8, 50], ids=["blocks", "one mask"])
def model(request: pytest.FixtureRequest) -> GraniteSWAForCausalLM:
    """With a window whose mask comes in blocks, and one that is more than half of the input."""
    torch.manual_seed(0)
    config = GraniteSWAConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=2048, tie_word_embeddings=True, sliding_window=request.param,
        layer_types=list_layer_types(3, 2, "sliding_attention"), attention_multiplier=0.25, embedding_multiplier=1.0,
        residual_multiplier=1.0, logits_scaling=1.0,
    )  # fmt: skip
    model: Any = opinionated(GraniteSWAForCausalLM(config), 1).train(False)
    for layer, kind in zip(model.model.layers, config.layer_types, strict=True):
        windowed = kind == "sliding_attention"
        torch.nn.init.normal_(layer.self_attn.sinks, mean=1.0 if windowed else -1e4, std=float(windowed))
        layer.self_attn.sinks.requires_grad_(windowed)
    return model  # type: ignore[no-any-return]


def outputs(
    model: GraniteSWAForCausalLM, ids: torch.Tensor, implementation: str, **given: Any
) -> tuple[torch.Tensor, ...]:
    """The logits without those of padding, and the gradients of sinks, queries, keys and values."""
    model.set_attn_implementation(implementation)
    model.zero_grad()
    logits = model(input_ids=ids, use_cache=False, **given).logits
    logits = logits[given["attention_mask"].bool()] if "attention_mask" in given else logits
    logits.square().mean().backward()
    attention = model.model.layers[0].self_attn
    gradients = [
        part.grad.clone()
        for part in (attention.sinks, *(p.weight for p in (attention.q_proj, attention.k_proj, attention.v_proj)))
    ]
    return logits.detach(), *gradients


@pytest.mark.parametrize(
    "given",
    [{}, {"attention_mask": LEFT}, {"attention_mask": RIGHT}, {"position_ids": PACKED}],
    ids=["whole", "padded on the left", "padded on the right", "packed"],
)
def test_it_is_what_transformers_computes(model: GraniteSWAForCausalLM, given: dict[str, Any]) -> None:
    ids = torch.randint(0, 100, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    ours, theirs = (outputs(model, ids, name, **given) for name in (SINK_ATTENTION, "eager"))
    for one, other in zip(ours, theirs, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_a_longer_input_has_blocks_in_place_of_a_square(model: GraniteSWAForCausalLM) -> None:
    window = model.config.sliding_window
    shape = build_mask_with_sink(
        2, LENGTH, LENGTH, mask_function=lambda _b, _h, q, k: (k <= q) & (k > q - window), local_size=window
    ).shape
    assert shape == ((2, 9, 1, 8, 17) if window == 8 else (2, 1, LENGTH, LENGTH + 1))


def test_a_text_is_continued_from_the_cache_as_without_it(model: GraniteSWAForCausalLM) -> None:
    """The first batch of keys is longer than two windows, later ones come from a cache that keeps a window."""
    ids = torch.randint(0, 100, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    settings = GenerationConfig(max_new_tokens=20, do_sample=False, pad_token_id=0, eos_token_id=None)
    answer = model.generate(input_ids=ids, attention_mask=LEFT, generation_config=settings)
    attention = torch.cat([LEFT, torch.ones(2, 20, dtype=torch.long)], 1)
    logits = model(input_ids=answer, attention_mask=attention, use_cache=False).logits
    assert answer[:, LENGTH:].equal(logits[:, LENGTH - 1 : -1].argmax(-1))
    assert len(set(answer[0, LENGTH:].tolist())) > 5, "a model that repeats itself shows nothing"
