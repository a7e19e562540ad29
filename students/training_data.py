"""A training's data: conversations encoded, divided into training and held-out parts, and ordered by epoch.

Knows nothing of models or losses.
"""

import random
from collections.abc import Hashable, Sequence
from itertools import zip_longest
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from core.config.students import StudentConfig
from core.errors import RunFailed
from core.row_groups import choose_groups, group_rows
from core.runs.student_records import TruncationRecord
from core.storage.atomic_files import count_values
from students.chat_encoding import (
    Conversation,
    EncodedConversation,
    UnusableReason,
    encode_untruncated,
    truncate_conversation,
)


class TrainingData(NamedTuple):
    """The data of a training; `unusable` counts the excluded conversations by `UnusableReason`."""

    train: list[EncodedConversation]
    held_out: list[EncodedConversation]
    unusable: dict[str, int]
    rejected: Sequence[EncodedConversation | None] = ()
    """For each conversation of `train` its rejected counterpart, if it has one; empty without pairs."""
    places: Sequence[int] = ()
    """The index of each conversation of `train` in the input."""
    truncation: TruncationRecord | None = None


def encode_and_split(
    conversations: Sequence[Conversation],
    held_out: Sequence[Conversation] | None,
    tokenizer: PreTrainedTokenizerBase,
    config: StudentConfig,
    seed: int,
    rejected: Sequence[Conversation | None] = (),
) -> TrainingData:
    """Encode all; where `held_out` is None, draw `config.held_out` of the usable ones with `seed`, at least one. None of their
    prompts and pictures is trained on.

    `rejected` has the counterpart of each of `conversations`, or None, or is empty; a pair is used only if both are usable.

    Raises:
        RunFailed: if one of the two parts would be empty.
    """
    results, sizes = _encode_all((*conversations, *(held_out or ())), tokenizer, config)
    worse, worse_sizes = _encode_all(rejected, tokenizer, config)
    sizes = [max(pair) for pair in zip_longest(sizes, worse_sizes, fillvalue=0)]
    for place, other in enumerate(worse):
        if isinstance(other, UnusableReason):
            results[place] = other
    given = len(conversations)
    places = [place for place in range(given) if isinstance(results[place], EncodedConversation)]
    train = [result for result in results[:given] if isinstance(result, EncodedConversation)]
    kept_back = [result for result in results[given:] if isinstance(result, EncodedConversation)]
    unusable = count_values(result.value for result in results if isinstance(result, UnusableReason))
    if held_out is None and len(train) > 1:
        drawn = _draw_held_out([conversations[place] for place in places], train, config.held_out, seed)
        kept_back = [train[place] for place in sorted(drawn)]
        remaining = [index for index in range(len(train)) if index not in drawn]
        train, places = [train[index] for index in remaining], [places[index] for index in remaining]
    if not train or not kept_back:
        why = "".join(f"; {count} left out, {reason}" for reason, count in unusable.items())
        raise RunFailed(f"student: {len(results)} conversations are too few to train on and to hold out from{why}")
    counterparts = [worse[place] for place in places if worse]
    paired = [result if isinstance(result, EncodedConversation) else None for result in counterparts]
    truncation = TruncationRecord(
        truncated=sum(size > config.max_tokens for size in sizes),
        conversations=len(sizes),
        longest=max(sizes),
        max_tokens=config.max_tokens,
    )
    return TrainingData(train, kept_back, unusable, paired, places, truncation)


def _draw_held_out(
    conversations: Sequence[Conversation], encoded: Sequence[EncodedConversation], share: float, seed: int
) -> set[int]:
    """The places of about `share` of the conversations; those with the same prompt or picture are together. If all have the same
    prompt, only pictures can be kept apart.
    """
    pictures = [[placed.image for placed in one.images] for one in encoded]
    groups = group_rows([[*shown, _cut_prompt(one)] for one, shown in zip(conversations, pictures, strict=True)])
    if len(groups) == 1:
        groups = group_rows(pictures)
    count = len(conversations)
    size = min(max(1, round(share * count)), count - 1)
    group_of = {place: number for number, group in enumerate(groups) for place in group}
    drawn = [group_of[place] for place in random.Random(f"held out {seed}").sample(range(count), size)]
    return choose_groups([groups[number] for number in dict.fromkeys([*drawn, *range(len(groups))])], size)


def _cut_prompt(conversation: Conversation) -> tuple[Hashable, ...]:
    """The turns up to the last one of the user."""
    last = max((place for place, turn in enumerate(conversation, 1) if turn.role == "user"), default=0)
    return tuple((turn.role, turn.text, turn.images) for turn in conversation[:last])


def _encode_all(
    conversations: Sequence[Conversation | None], tokenizer: PreTrainedTokenizerBase, config: StudentConfig
) -> tuple[list[EncodedConversation | UnusableReason | None], list[int]]:
    """Each conversation truncated to `config.max_tokens`, and its full length in tokens; 0 if it is unusable at any length or
    None.
    """
    results: list[EncodedConversation | UnusableReason | None] = []
    sizes: list[int] = []
    for conversation in conversations:
        if conversation is None:
            results.append(None)
            sizes.append(0)
            continue
        whole = encode_untruncated(conversation, tokenizer, config.image_limits)
        results.append(whole if isinstance(whole, UnusableReason) else truncate_conversation(whole, config.max_tokens))
        sizes.append(0 if isinstance(whole, UnusableReason) else len(whole.ids))
    return results, sizes


def shuffle_epoch(count: int, seed: int, epoch: int) -> list[int]:
    """The order of `count` conversations in an epoch; it depends on the arguments only, so a resumed training has the same."""
    order = list(range(count))
    random.Random(f"epoch {epoch} of {seed}").shuffle(order)
    return order
