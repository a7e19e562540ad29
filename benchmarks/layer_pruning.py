"""Greedy layer pruning of a Llama: the order in which removing layers raises the loss least.

Knows models and losses; knows nothing of training. `python -m benchmarks.layer_pruning` measures the embedded teacher
on its own answers; `REMOVAL_ORDER` in `students.start_model` is the result.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaForCausalLM

from core.sample import Message
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation, find_pad_id, render_chat
from students.predictions import TokenBatch, build_batch, compute_token_loss
from students.start_model import TEACHER_LAYERS, StartModel, start_from_layers

TOPICS_FILE = Path("data/seeds/topics.jsonl")
ANSWER_COUNT = 32
ANSWER_TOKENS = 48


class LayerRemoval(NamedTuple):
    """A removed layer, and the loss without it and all layers removed earlier, in nats per learned token."""

    layer: int
    loss: float


def find_removal_order(model: LlamaForCausalLM, batch: TokenBatch) -> list[LayerRemoval]:
    """Repeatedly remove the layer whose absence raises the loss on `batch` least, until the first and last are left.

    As in SLEB (arXiv 2402.09025). Costs about n³/6 forward passes of a single layer, for n layers.
    """
    layers = list(model.model.layers)
    kept = list(range(len(layers)))
    removals: list[LayerRemoval] = []
    try:
        while len(kept) > 2:
            costs = [
                LayerRemoval(layer, _measure_loss_without(model, batch, layers, kept, without=layer))
                for layer in kept[1:-1]
            ]
            removals.append(min(costs, key=lambda removal: removal.loss))
            kept.remove(removals[-1].layer)
    finally:
        _set_layers(model, layers)
    return removals


@torch.no_grad()
def _measure_loss_without(
    model: LlamaForCausalLM, batch: TokenBatch, layers: list[torch.nn.Module], kept: list[int], *, without: int
) -> float:
    _set_layers(model, [layers[place] for place in kept if place != without])
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        return compute_token_loss(model, batch).mean.item()


def _set_layers(model: LlamaForCausalLM, layers: list[torch.nn.Module]) -> None:
    model.model.layers = torch.nn.ModuleList(layers)
    model.config.num_hidden_layers = len(layers)


def generate_answers(start: StartModel, topics: list[str]) -> list[Conversation]:
    """The model's own greedy answers about `topics`."""
    tokenizer = start.tokenizer
    tokenizer.padding_side = "left"
    questions = [[Message(role="user", content=f"Write about {topic}.")] for topic in topics]
    prompts = [render_chat(question, tokenizer, answer_next=True) for question in questions]
    inputs = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
    output = start.model.generate(**inputs, do_sample=False, max_new_tokens=ANSWER_TOKENS)  # type: ignore[operator]
    texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [
        [*question, Message(role="assistant", content=text)] for question, text in zip(questions, texts, strict=True)
    ]


def print_removal_order() -> None:
    lines = TOPICS_FILE.read_text(encoding="utf-8").splitlines()
    topics = [json.loads(line)["topic"] for line in lines[:: len(lines) // ANSWER_COUNT][:ANSWER_COUNT]]
    start = start_from_layers(TEACHER_LAYERS)
    results = [encode_conversation(answer, start.tokenizer, 256) for answer in generate_answers(start, topics)]
    encoded = [result for result in results if isinstance(result, EncodedConversation)]
    batch = build_batch(encoded, find_pad_id(start.tokenizer))
    for removal in find_removal_order(start.model, batch):  # type: ignore[arg-type]
        sys.stdout.write(f"{removal.layer} {removal.loss:.3f}\n")


if __name__ == "__main__":
    print_removal_order()
