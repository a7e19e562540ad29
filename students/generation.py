"""Texts sampled from a model in torch: on-policy answers, the student's own, for its teacher to score; and the replies of a
student's folder, for machines without llama.cpp and for students that GGUF cannot hold.

Knows models and encoded conversations; knows nothing of losses or training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.utils import logging

from core.errors import UsageError
from core.thinking import THINK_OPENING
from students.architectures.known_architectures import FROM_FOLDER, choose_attention
from students.chat_encoding import EncodedConversation, find_pad_id, find_stop_ids


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


class StudentTextGenerator:
    """A loaded student that writes replies."""

    def __init__(self, folder: Path) -> None:
        """Load the student. Raises UsageError if `transformers` cannot load it."""
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **FROM_FOLDER)
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **FROM_FOLDER)
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder}: transformers cannot load it: {str(error).split(chr(10), 1)[0]}") from None
        choose_attention(model)
        model.train(False)
        self._model: Any = model

    def generate_reply(
        self, messages: Sequence[Mapping[str, str]], temperature: float, top_p: float, max_tokens: int
    ) -> str:
        """The next assistant turn with its thinking in tags; at temperature 0 always the most likely token."""
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max_tokens, eos_token_id=find_stop_ids(self._tokenizer),
            pad_token_id=find_pad_id(self._tokenizer), **sampling,
        )  # fmt: skip
        prompt: Any = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        self._model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            output = self._model.generate(**prompt, generation_config=settings)
        asked = prompt["input_ids"].shape[1]
        reply = str(self._tokenizer.decode(output[0, asked:], skip_special_tokens=True)).strip()
        # Some chat templates open the thinking themselves.
        opened = str(self._tokenizer.decode(output[0, :asked])).rstrip().endswith(THINK_OPENING)
        return f"{THINK_OPENING}\n{reply}" if opened else reply
