"""On-policy answers: the student's own, sampled for the prompts of conversations, for its teacher to score.

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
    prompts = [conversation.ids[: find_last_answer(conversation)] for conversation in encoded]
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
    # The model's defaults (top_p, a penalty) fill in missing settings and would change the distribution.
    defaults, model.generation_config = model.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        output = model.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device), attention_mask=attention.to(model.device), generation_config=settings
        )
    model.train(training)
    model.generation_config = defaults

    conversations = []
    for prompt, row in zip(prompts, output[:, longest:].tolist(), strict=True):
        end = next((place + 1 for place, token in enumerate(row) if token in stop), len(row))
        conversations.append(EncodedConversation(prompt + tuple(row[:end]), (False,) * len(prompt) + (True,) * end))
    return conversations


def find_last_answer(conversation: EncodedConversation) -> int:
    """The start of the last span of learned tokens."""
    learned = conversation.learned
    place = len(learned) - learned[::-1].index(True)
    while place and learned[place - 1]:
        place -= 1
    return place
