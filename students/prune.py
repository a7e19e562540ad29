"""Which layers a Llama can best do without, found by taking them out and measuring.

Knows models and losses; knows nothing of training. `python -m students.prune` measures the embedded teacher on
answers of its own; the result stands in `students.start`.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaForCausalLM

from core.sample import Message
from students.data import Batch, Conversation, Encoded, batched, encode, pad_id, render
from students.evaluate import token_loss
from students.start import Start, from_layers

TOPICS = Path("data/seeds/topics.jsonl")
ANSWERS = 32
ANSWER_TOKENS = 48


class Removal(NamedTuple):
    """A layer taken out, and the loss without it and all before it, in nats per learned token."""

    layer: int
    loss: float


def removal_order(model: LlamaForCausalLM, batch: Batch) -> list[Removal]:
    """Take out the layer whose absence costs least on `batch`, again and again, until the first and last are left.

    So does SLEB (arXiv 2402.09025). Costs about a sixth of the cube of the number of layers in forward passes of one
    layer each.
    """
    layers = list(model.model.layers)
    kept = list(range(len(layers)))
    removals: list[Removal] = []
    try:
        while len(kept) > 2:
            costs = [Removal(layer, _loss_of(model, batch, layers, kept, without=layer)) for layer in kept[1:-1]]
            removals.append(min(costs, key=lambda removal: removal.loss))
            kept.remove(removals[-1].layer)
    finally:
        _set_layers(model, layers)
    return removals


@torch.no_grad()
def _loss_of(
    model: LlamaForCausalLM, batch: Batch, layers: list[torch.nn.Module], kept: list[int], *, without: int
) -> float:
    _set_layers(model, [layers[place] for place in kept if place != without])
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        return token_loss(model, batch).mean.item()


def _set_layers(model: LlamaForCausalLM, layers: list[torch.nn.Module]) -> None:
    model.model.layers = torch.nn.ModuleList(layers)
    model.config.num_hidden_layers = len(layers)


def answers(start: Start, topics: list[str]) -> list[Conversation]:
    """What the model itself says about `topics`, without chance."""
    tokenizer = start.tokenizer
    tokenizer.padding_side = "left"
    asked = [[Message(role="user", content=f"Write about {topic}.")] for topic in topics]
    prompts = [render(one, tokenizer, answer_next=True) for one in asked]
    inputs = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
    said = start.model.generate(**inputs, do_sample=False, max_new_tokens=ANSWER_TOKENS)  # type: ignore[operator]
    texts = tokenizer.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [[*one, Message(role="assistant", content=text)] for one, text in zip(asked, texts, strict=True)]


def main() -> None:
    lines = TOPICS.read_text(encoding="utf-8").splitlines()
    topics = [json.loads(line)["topic"] for line in lines[:: len(lines) // ANSWERS][:ANSWERS]]
    start = from_layers(30)
    encoded = [encode(one, start.tokenizer, 256) for one in answers(start, topics)]
    batch = batched([one for one in encoded if isinstance(one, Encoded)], pad_id(start.tokenizer))
    for removal in removal_order(start.model, batch):  # type: ignore[arg-type]
        sys.stdout.write(f"{removal.layer} {removal.loss:.3f}\n")


if __name__ == "__main__":
    main()
