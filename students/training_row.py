"""One row of a training as the model sees it: its tokens, and which of them are learned.

Knows tokenizers, batches and the order of a training; loads no weights and trains nothing.
"""

from collections.abc import Sequence
from itertools import groupby

from pydantic import BaseModel
from transformers import PreTrainedTokenizerBase

from core.config.students import StudentConfig
from core.sample import json_digest
from students.chat_encoding import (
    Conversation,
    EncodedConversation,
    check_tokenizer,
    cut_conversation,
    encode_untruncated,
)
from students.start_model import load_start_tokenizer
from students.training_data import encode_and_split, shuffle_epoch
from students.vocabulary_trimming import choose_tokens, shrink_tokenizer


class TokenSpan(BaseModel):
    """Consecutive tokens of a row that are all learned, or all only read."""

    learned: bool
    text: str
    ids: list[int]


class TokenRow(BaseModel):
    """A row of a batch: one conversation."""

    tokens: int
    learned: int
    cut: int
    """Tokens of the conversation behind `max_tokens`, which are not in the row."""
    spans: list[TokenSpan]


class TrainingRow(BaseModel):
    """What a training does with one conversation, or pair, of its input."""

    number: int
    use: str
    """The step of the first epoch that learns from it, `held out`, or why it is left out."""
    start: str
    template: str
    """A digest of the chat template."""
    rows: list[TokenRow]
    """Of a pair: that of the better answer, then that of the worse one. None of what cannot be encoded."""


def build_training_row(
    number: int,
    conversations: Sequence[Conversation],
    config: StudentConfig,
    seed: int,
    rejected: Sequence[Conversation | None] = (),
) -> TrainingRow:
    """The row of conversation `number`, from 1, in the training with these arguments.

    Raises:
        UsageError: if the start has no tokenizer for a training, or its template does not fit a conversation.
    """
    tokenizer = load_start_tokenizer(config)
    check_tokenizer(tokenizer)
    data = encode_and_split(conversations, None, tokenizer, config, seed, rejected)
    if config.vocabulary:
        tokenizer = shrink_tokenizer(tokenizer, choose_tokens(tokenizer, data.train, config.vocabulary))
        data = encode_and_split(conversations, None, tokenizer, config, seed, rejected)
    texts = [conversations[number - 1], *(other for other in rejected[number - 1 : number] if other)]
    found = [encode_untruncated(text, tokenizer, config.image_limits) for text in texts]
    whole = [one for one in found if isinstance(one, EncodedConversation)]
    if number - 1 in data.places:
        place = data.places.index(number - 1)
        use = _name_step(place, len(data.train), config, seed)
        cut = [data.train[place], *(other for other in data.rejected[place : place + 1] if other)]
    else:
        use = next((f"left out: {why}" for why, numbers in data.unusable.items() if number in numbers), "held out")
        cut = [cut_conversation(one, config.max_tokens) for one in whole]
    rows = []
    if len(whole) == len(found):
        for before, one in zip(whole, cut, strict=True):
            spans = _read_spans(one, tokenizer)
            learned = sum(len(span.ids) for span in spans if span.learned)
            rows.append(TokenRow(tokens=len(one.ids), learned=learned, cut=len(before.ids) - len(one.ids), spans=spans))
    template = json_digest(tokenizer.chat_template)
    return TrainingRow(number=number, use=use, start=config.start, template=template, rows=rows)


def _name_step(place: int, conversations: int, config: StudentConfig, seed: int) -> str:
    """The step of the first epoch that learns from the conversation at a place."""
    step = shuffle_epoch(conversations, seed, 0).index(place) // (config.batch_size * config.accumulate) + 1
    return f"learned in step {step} of the first epoch"


def _read_spans(conversation: EncodedConversation, tokenizer: PreTrainedTokenizerBase) -> list[TokenSpan]:
    marks = (False, *conversation.learned[1:])
    images = [next((one for one in conversation.images if one.begin <= i < one.end), None) for i in range(len(marks))]
    spans = []
    for (learned, image), group in groupby(zip(marks, images, conversation.ids, strict=True), lambda token: token[:2]):
        ids = [token[2] for token in group]
        text = f"[image of {len(ids)} tokens]" if image else str(tokenizer.decode(ids))
        spans.append(TokenSpan(learned=learned, text=text, ids=ids))
    return spans
