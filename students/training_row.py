"""One row of a training as the model sees it: its tokens, which of them are learned, and where packed conversations join.

Knows tokenizers, batches and the order of a training; loads no weights and trains nothing.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

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
    find_pad_id,
)
from students.predictions import IGNORED_LABEL, TokenBatch, build_batch
from students.start_model import load_start_tokenizer
from students.training_data import TrainingData, encode_and_split, shuffle_epoch
from students.vocabulary_trimming import choose_tokens, shrink_tokenizer


class TokenSpan(BaseModel):
    """Consecutive tokens of one conversation that are all learned, or all only read."""

    conversation: int
    """Its number in the input, from 1."""
    worse: bool
    """Whether it is the worse answer of a pair."""
    learned: bool
    text: str
    ids: list[int]


class TokenRow(BaseModel):
    """A row of a batch: one conversation, or several if packed."""

    tokens: int
    learned: int
    cut: int
    """Tokens of the shown conversation behind `max_tokens`, which are not in the row."""
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


class _Step(NamedTuple):
    """The conversations of a batch, with their numbers in the input; the worse answers of pairs come last."""

    use: str
    encoded: list[EncodedConversation]
    numbers: list[int]
    worse: int
    packed_to: int = 0


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
        step = _find_step(number, data, config, seed)
    else:
        use = next((f"left out: {why}" for why, numbers in data.unusable.items() if number in numbers), "held out")
        cut = [cut_conversation(one, config.max_tokens) for one in whole]
        step = _Step(use, cut, [number] * len(cut), worse=len(cut) - 1)
    rows = []
    if len(whole) == len(found):
        batch = build_batch(step.encoded, find_pad_id(tokenizer), packed_to=step.packed_to)
        owners = [owner for owner, other in enumerate(step.numbers) if other == number]
        for owner, one in zip(owners, whole, strict=True):
            spans = _read_spans(batch, owner, step, tokenizer)
            tokens, learned = (
                sum(len(span.ids) for span in spans if span.learned or not only) for only in (False, True)
            )
            lost = len(one.ids) - len(step.encoded[owner].ids)
            rows.append(TokenRow(tokens=tokens, learned=learned, cut=lost, spans=spans))
    template = json_digest(tokenizer.chat_template)
    return TrainingRow(number=number, use=step.use, start=config.start, template=template, rows=rows)


def _find_step(number: int, data: TrainingData, config: StudentConfig, seed: int) -> _Step:
    """The batch that learns from a conversation in the first epoch."""
    order = shuffle_epoch(len(data.train), seed, 0)
    place, size = order.index(data.places.index(number - 1)), config.batch_size
    batch = order[place // size * size :][:size]
    pairs = [index for index in batch if data.rejected and data.rejected[index]]
    worse = [other for index in pairs if (other := data.rejected[index])]
    return _Step(
        f"learned in step {place // (size * config.accumulate) + 1} of the first epoch",
        [*(data.train[index] for index in batch), *worse],
        [data.places[index] + 1 for index in (*batch, *pairs)],
        len(worse),
        config.max_tokens if config.packing else 0,
    )


def _read_spans(batch: TokenBatch, owner: int, step: _Step, tokenizer: PreTrainedTokenizerBase) -> list[TokenSpan]:
    """The row of the batch that has the conversation `owner`, without padding."""
    row = int((batch.owner == owner).any(1).nonzero()[0])
    images = [placed for place, placed in batch.images if place == row]
    tokens = zip(batch.ids[row].tolist(), batch.labels[row].tolist(), batch.owner[row].tolist(), strict=True)
    marked = [
        (one, label != IGNORED_LABEL, next((image for image in images if image.begin <= place < image.end), None), id_)
        for place, (id_, label, one) in enumerate(tokens)
        if one >= 0
    ]
    spans = []
    for (one, learned, image), group in groupby(marked, key=lambda token: token[:3]):
        ids = [token[3] for token in group]
        text = f"[image of {len(ids)} tokens]" if image else str(tokenizer.decode(ids))
        worse = one >= len(step.numbers) - step.worse
        spans.append(TokenSpan(conversation=step.numbers[one], worse=worse, learned=learned, text=text, ids=ids))
    return spans
