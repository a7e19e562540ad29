"""A training's data: conversations encoded, divided into training and held-out parts, and ordered by epoch.

Knows nothing of models or losses.
"""

import random
from collections.abc import Hashable, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from core.config.students import StudentConfig
from core.errors import RunFailed, UsageError
from core.row_groups import choose_groups, group_rows
from core.runs.student_records import TruncationRecord
from students.chat_encoding import (
    Conversation,
    EncodedConversation,
    UnusableReason,
    encode_untruncated,
    truncate_conversation,
)


class PreferenceAnswer(NamedTuple):
    """A kept or refused answer, for `kto`."""

    text: EncodedConversation
    kept: bool
    unrelated: EncodedConversation
    """Its prompt with the answer to another one."""


class TrainingData(NamedTuple):
    """The data of a training."""

    train: list[EncodedConversation]
    held_out: list[EncodedConversation]
    unusable: dict[UnusableReason, list[int]]
    """The numbers, from 1, of the conversations of the input that are excluded."""
    rejected: Sequence[EncodedConversation | None] = ()
    """For each conversation of `train` its rejected counterpart, if it has one; empty without pairs."""
    places: Sequence[int] = ()
    """The index of each conversation of `train` in the input."""
    truncation: TruncationRecord | None = None
    judged: Sequence[PreferenceAnswer] = ()

    @property
    def unusable_counts(self) -> dict[str, int]:
        return {reason.value: len(numbers) for reason, numbers in self.unusable.items()}

    def check(self) -> None:
        """Raises UsageError if one of the two parts is empty because of unusable conversations; RunFailed if it is otherwise."""
        if self.train and self.held_out:
            return
        usable = len(self.train) + len(self.held_out)
        given = usable + sum(self.unusable_counts.values())
        sentence = (
            f"student: {usable} of {given} conversations can be trained on, too few to learn and to hold out from"
        )
        if not self.unusable:
            raise RunFailed(sentence)
        sentence += "".join(f"; conversation {numbers[0]}: {reason}" for reason, numbers in self.unusable.items())
        if UnusableReason.beyond_max_tokens in self.unusable and self.truncation:
            sentence += f"; {self.truncation.summary}"
        raise UsageError(
            sentence, hint="hint: `distill INPUT --show-row N` shows a conversation as the model would see it"
        )


def encode_and_split(
    conversations: Sequence[Conversation],
    held_out: Sequence[Conversation] | None,
    tokenizer: PreTrainedTokenizerBase,
    config: StudentConfig,
    seed: int,
    rejected: Sequence[Conversation | None] = (),
    judged: Sequence[tuple[Conversation, bool]] = (),
    siblings: Sequence[Sequence[Conversation]] = (),
) -> TrainingData:
    """Encode all; where `held_out` is None, draw `config.held_out` of the usable ones with `seed`, at least one. None of their
    prompts and pictures is trained on.

    `rejected` has the counterpart of each of `conversations`, or None, or is empty; a pair is used only if both are usable.
    `judged` has answers with their verdicts; those to held-out prompts are left out, and those with a held-out conversation
    among their `siblings`, if these are given: the rows of the same seed, which may have another prompt.
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
    unusable: dict[UnusableReason, list[int]] = {}
    for number, result in enumerate(results, 1):
        if isinstance(result, UnusableReason):
            unusable.setdefault(result, []).append(number)
    if held_out is None and len(train) > 1:
        drawn = _draw_held_out([conversations[place] for place in places], train, config.held_out, seed)
        kept_back = [train[place] for place in sorted(drawn)]
        remaining = [index for index in range(len(train)) if index not in drawn]
        train, places = [train[index] for index in remaining], [places[index] for index in remaining]
    counterparts = [worse[place] for place in places if worse]
    paired = [result if isinstance(result, EncodedConversation) else None for result in counterparts]
    truncation = TruncationRecord(
        truncated=sum(size > config.max_tokens for size in sizes),
        conversations=len(sizes),
        longest=max(sizes, default=0),
        max_tokens=config.max_tokens,
    )
    answers: list[PreferenceAnswer] = []
    if judged:
        apart = held_out or [conversations[place] for place in set(range(given)).difference(places)]
        prompts = set(map(_cut_prompt, apart))
        pairs = zip(judged, siblings or [()] * len(judged), strict=True)
        usable = [one for one, rows in pairs if prompts.isdisjoint(map(_cut_prompt, (one[0], *rows)))]
        answers = _encode_judged(usable, tokenizer, config)
    return TrainingData(train, kept_back, unusable, paired, places, truncation, answers)


def _encode_judged(
    judged: Sequence[tuple[Conversation, bool]], tokenizer: PreTrainedTokenizerBase, config: StudentConfig
) -> list[PreferenceAnswer]:
    """The usable answers, each with the next answer to another prompt, or its own if all prompts are equal."""
    prompts = [_cut_prompt(text) for text, _ in judged]
    unrelated = []
    for place, (text, _) in enumerate(judged):
        turned = chain(range(place + 1, len(judged)), range(place))
        other = next((index for index in turned if prompts[index] != prompts[place]), place)
        unrelated.append([*text[: len(prompts[place])], *judged[other][0][len(prompts[other]) :]])
    texts, _ = _encode_all([text for text, _ in judged], tokenizer, config)
    others, _ = _encode_all(unrelated, tokenizer, config)
    return [
        PreferenceAnswer(text, kept, other)
        for text, other, (_, kept) in zip(texts, others, judged, strict=True)
        if isinstance(text, EncodedConversation) and isinstance(other, EncodedConversation)
    ]


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
    for number, conversation in enumerate(conversations, 1):
        if conversation is None:
            results.append(None)
            sizes.append(0)
            continue
        try:
            whole = encode_untruncated(conversation, tokenizer, config.image_limits)
        except UsageError as error:
            raise UsageError(f"conversation {number}: {error}") from None
        results.append(whole if isinstance(whole, UnusableReason) else truncate_conversation(whole, config.max_tokens))
        sizes.append(0 if isinstance(whole, UnusableReason) else len(whole.ids))
    return results, sizes


def shuffle_epoch(count: int, seed: int, epoch: int) -> list[int]:
    """The order of `count` conversations in an epoch; it depends on the arguments only, so a resumed training has the same."""
    order = list(range(count))
    random.Random(f"epoch {epoch} of {seed}").shuffle(order)
    return order
