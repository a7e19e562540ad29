"""Texts sampled from a model in torch: on-policy answers, the student's own, for its teacher to score.

Knows models and encoded conversations; knows nothing of losses or training.
"""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from students.chat_encoding import EncodedConversation


def generate_own_answers(
    model: PreTrainedModel,
    encoded: Sequence[EncodedConversation],
    *,
    stop: Sequence[int],
    pad: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> list[EncodedConversation]:
    """Each conversation with its last answer replaced by one that `model` samples; only that answer is learned.

    An answer ends with one of `stop`, or after `max_new_tokens`. `seed` determines the samples; the state of torch's global
    generator is restored.
    """
    prompts = [conversation.ids[: _find_last_answer(conversation)] for conversation in encoded]
    answers = sample_texts(
        model, prompts, stop=stop, pad=pad, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )
    return [
        EncodedConversation(prompt + answer, (False,) * len(prompt) + (True,) * len(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def sample_texts(
    model: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    *,
    stop: Sequence[int],
    pad: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    top_p: float = 1.0,
) -> list[tuple[int, ...]]:
    """For each prompt the tokens that `model` samples after it, in one batch: up to one of `stop`, which is included, or up to
    `max_new_tokens`. With `top_p` below 1, from the likeliest tokens of this probability (nucleus sampling, arXiv 1904.09751).

    `seed` determines the samples; the state of torch's global generator is restored.
    """
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad)
    attention = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        attention[row, longest - len(prompt) :] = 1
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True, temperature=temperature, top_k=0, top_p=top_p, max_new_tokens=max_new_tokens,
        eos_token_id=list(stop), pad_token_id=pad,
    )  # fmt: skip
    training = model.training
    model.train(False)
    # The model's defaults (top_p, a penalty) fill in missing settings and would change the distribution.
    defaults, model.generation_config = model.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        output = model.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device), attention_mask=attention.to(model.device), generation_config=settings
        )
    model.train(training)
    model.generation_config = defaults

    texts = []
    for row in output[:, longest:].tolist():
        end = next((place + 1 for place, token in enumerate(row) if token in stop), len(row))
        texts.append(tuple(row[:end]))
    return texts


def _find_last_answer(conversation: EncodedConversation) -> int:
    """The start of the last span of learned tokens."""
    learned = conversation.learned
    place = len(learned) - learned[::-1].index(True)
    while place and learned[place - 1]:
        place -= 1
    return place
