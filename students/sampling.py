"""Answers of the student's own, to the prompts of conversations, for its teacher to judge.

Knows models and encoded conversations; knows nothing of losses or of training.
"""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from students.data import Encoded


def own_answers(
    model: PreTrainedModel,
    encoded: Sequence[Encoded],
    *,
    stop: Sequence[int],
    pad: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> list[Encoded]:
    """Each conversation up to its last answer, with one that `model` draws in its place and that alone learned.

    An answer ends with one of `stop`, or after `max_new_tokens`. The draws follow from `seed`; torch's global generator is
    left as it was.
    """
    prompts = [one.ids[: last_answer(one)] for one in encoded]
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad)
    attention = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        attention[row, longest - len(prompt) :] = 1
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True, temperature=temperature, top_k=0, max_new_tokens=max_new_tokens, eos_token_id=list(stop), pad_token_id=pad
    )  # fmt: skip
    training = model.training
    model.train(False)
    # What a model's own settings say (top_p, a penalty) is taken for whatever is not told, and would draw from another model.
    usual, model.generation_config = model.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        said = model.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device), attention_mask=attention.to(model.device), generation_config=settings
        )
    model.train(training)
    model.generation_config = usual
    answers = [_until(row, stop) for row in said[:, longest:].tolist()]
    return [
        Encoded(prompt + answer, (False,) * len(prompt) + (True,) * len(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def last_answer(one: Encoded) -> int:
    """Where the last stretch of learned tokens begins."""
    place = len(one.learned) - one.learned[::-1].index(True)
    while place and one.learned[place - 1]:
        place -= 1
    return place


def _until(tokens: Sequence[int], stop: Sequence[int]) -> tuple[int, ...]:
    end = next((place + 1 for place, token in enumerate(tokens) if token in stop), len(tokens))
    return tuple(tokens[:end])
