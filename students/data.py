"""Conversations as token ids, each token marked as learned or only read.

Knows the tokenizer and its chat template; knows nothing of models or losses.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from core.errors import RunFailed, UsageError
from core.sample import Message
from core.store import counted
from core.student_config import StudentConfig

Conversation = Sequence[Message]

IGNORED = -100
"""The label of a token that is only read; torch's cross-entropy leaves it out by default."""


class Encoded(NamedTuple):
    """A conversation in tokens. `learned` marks every turn of the assistant, with its end-of-turn token."""

    ids: tuple[int, ...]
    learned: tuple[bool, ...]


class Unusable(StrEnum):
    """Why a conversation cannot be trained on: a closed set."""

    silent = "the assistant says nothing"
    unasked = "the assistant speaks first"
    cut = "the assistant's part lies behind max_tokens"
    forged = "its text holds a special token of the tokenizer"


class Prepared(NamedTuple):
    """The data of a training; `unusable` counts what is in neither part, by `Unusable`."""

    train: list[Encoded]
    held_out: list[Encoded]
    unusable: dict[str, int]
    rejected: Sequence[Encoded] = ()
    """For each conversation of `train` the worse one that it is paired with, or none at all."""


class Batch(NamedTuple):
    """Tensors of shape (rows, longest). A row is one conversation, or several one after the other where they are packed."""

    ids: torch.Tensor
    labels: torch.Tensor
    """They stand where their token stands: the loss does the shift. The first of a conversation is never learned."""
    owner: torch.Tensor
    """Which of the conversations a token is of; -1 for padding."""
    attention: torch.Tensor | None
    """Whether it is a token, and not padding; None where conversations are packed."""
    positions: torch.Tensor | None
    """The place of each token in its conversation, if they are packed. Where they begin anew and there is no mask, transformers
    lets no conversation attend to another."""

    def on(self, device: torch.device) -> "Batch":
        moved = {name: tensor.to(device) for name, tensor in self._asdict().items() if tensor is not None}
        return self._replace(**moved)

    @property
    def layout(self) -> dict[str, torch.Tensor]:
        """What a model is told beside the tokens: `attention_mask` or `position_ids`."""
        told = {"attention_mask": self.attention, "position_ids": self.positions}
        return {name: tensor for name, tensor in told.items() if tensor is not None}


def encode(conversation: Conversation, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Encoded | Unusable:
    """Apply the chat template once and tokenise, cut after the assistant's last turn and at `max_tokens`.

    A turn is split from what precedes it exactly where generation would start, and the two are tokenised apart. So the
    marks are right by construction, and the student sees the ids that it will see when it is asked.

    Raises:
        UsageError: if the chat template does not lend itself to that.
    """
    if any(special in _written(message) for message in conversation for special in special_tokens(tokenizer)):
        return Unusable.forged
    if not any(message.role == "assistant" and _written(message).strip() for message in conversation):
        return Unusable.silent
    if conversation[0].role == "assistant":
        return Unusable.unasked
    ids: list[int] = []
    learned: list[bool] = []
    for read, turn in _turns(conversation, tokenizer):
        for text, mark in ((read, False), (turn, True)):
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += tokens
            learned += [mark] * len(tokens)
    encoded = Encoded(tuple(ids[:max_tokens]), tuple(learned[:max_tokens]))
    return encoded if any(encoded.learned) else Unusable.cut


def _written(message: Message) -> str:
    """What somebody wrote of a turn: what it says, and its calls without the marks around them."""
    return "\n".join(
        [message.content, *(json.dumps(call.model_dump(), ensure_ascii=False) for call in message.tool_calls)]
    )


def _turns(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, str]]:
    """For each turn of the assistant: the text since the one before, and the turn up to its end-of-turn token."""
    done = ""
    for place, message in enumerate(conversation):
        if message.role != "assistant":
            continue
        asked = render(conversation[:place], tokenizer, answer_next=True)
        answered = render(conversation[: place + 1], tokenizer)
        if not (answered.startswith(asked) and asked.startswith(done)):
            raise UsageError(
                "student.start: the chat template rewrites earlier turns, so its turns cannot be told apart"
            )
        turn = answered[len(asked) :]
        turn = turn[: end_of_turn(turn, tokenizer).end()]
        yield asked[len(done) :], turn
        done = asked + turn


def render(messages: Conversation, tokenizer: PreTrainedTokenizerBase, *, answer_next: bool = False) -> str:
    """The chat template's text of `messages`; with `answer_next`, up to where the assistant begins."""
    turns = [{"role": message.role, "content": message.text} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_next))
    except TemplateError as error:
        raise UsageError(
            f"student.start: the chat template does not take a conversation of the data: {error}"
        ) from None


def end_of_turn(turn: str, tokenizer: PreTrainedTokenizerBase) -> re.Match[str]:
    """Where the special token stands that ends `turn`; a student that never learns it never stops."""
    ends = list(re.finditer("|".join(map(re.escape, special_tokens(tokenizer))), turn))
    if not ends:
        raise UsageError(
            "student.start: the chat template ends a turn without a special token; there is nothing to stop at"
        )
    return ends[-1]


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: the chat template's, and the tokenizer's own end of text if it differs."""
    said = [Message(role="user", content="a"), Message(role="assistant", content="b")]
    _, turn = next(_turns(said, tokenizer))
    found = {tokenizer.convert_tokens_to_ids(end_of_turn(turn, tokenizer).group()), tokenizer.eos_token_id}
    return sorted(found - {None})


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What fills a batch; it is neither attended to nor learned, so the end-of-turn token serves where none is set."""
    return stop_ids(tokenizer)[0] if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """See that conversations can be encoded turn by turn.

    Raises:
        UsageError: if there is no chat template, or if the tokenizer puts a space before each text (as Llama 2's does).
    """
    if not tokenizer.chat_template:
        raise UsageError("student.start: the tokenizer has no chat template; start from an instruct model")
    ids = [token for text in ("a b", "c") for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if tokenizer.decode(ids) != "a bc":
        raise UsageError(
            "student.start: the tokenizer adds to the texts it is given; use a model with a byte-level BPE"
        )


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """All of them, longest first, so that none is taken for the beginning of another."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return sorted({*added, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token))


def prepare(
    conversations: Sequence[Conversation],
    held_out: Sequence[Conversation] | None,
    tokenizer: PreTrainedTokenizerBase,
    config: StudentConfig,
    seed: int,
    rejected: Sequence[Conversation] = (),
) -> Prepared:
    """Encode all, and draw `config.held_out` of the usable ones by `seed` where `held_out` is None, at least one.

    `rejected` holds for each of `conversations` the worse one, or nothing at all; neither is of use without the other.

    Raises:
        RunFailed: if nothing is left for one of the parts.
    """
    results = [encode(one, tokenizer, config.max_tokens) for one in (*conversations, *(held_out or ()))]
    worse = [encode(one, tokenizer, config.max_tokens) for one in rejected]
    for place, other in enumerate(worse):
        if isinstance(other, Unusable):
            results[place] = other
    given = len(conversations)
    places = [place for place in range(given) if isinstance(results[place], Encoded)]
    train = [one for one in results[:given] if isinstance(one, Encoded)]
    kept_back = [one for one in results[given:] if isinstance(one, Encoded)]
    unusable = counted(one.value for one in results if isinstance(one, Unusable))
    if held_out is None and len(train) > 1:
        count = min(max(1, round(config.held_out * len(train))), len(train) - 1)
        drawn = set(random.Random(f"held out {seed}").sample(range(len(train)), count))
        kept_back = [train[place] for place in sorted(drawn)]
        train = [one for place, one in enumerate(train) if place not in drawn]
        places = [one for place, one in enumerate(places) if place not in drawn]
    if not train or not kept_back:
        why = "".join(f"; {count} left out, {reason}" for reason, count in unusable.items())
        raise RunFailed(f"student: {len(results)} conversations are too few to train on and to hold out from{why}")
    paired = [one for one in (worse[place] for place in places if worse) if isinstance(one, Encoded)]
    return Prepared(train, kept_back, unusable, paired)


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of `count` conversations in an epoch; drawn from these three, so a resumed training finds it again."""
    order = list(range(count))
    random.Random(f"epoch {epoch} of {seed}").shuffle(order)
    return order


def batched(encoded: Sequence[Encoded], pad: int, *, packed_to: int = 0) -> Batch:
    """One conversation a row, or with `packed_to` as many as make so many tokens; a longer one has a row of its own.

    Padded on the right to the longest row; padding is neither attended to nor learned.
    """
    sizes = [len(one.ids) for one in encoded]
    rows = best_fit(sizes, packed_to) if packed_to else [[place] for place in range(len(sizes))]
    longest = max(sum(sizes[place] for place in row) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    labels, owner, positions = torch.full_like(ids, IGNORED), torch.full_like(ids, -1), torch.zeros_like(ids)
    for index, row in enumerate(rows):
        begin = 0
        for place in row:
            here = slice(begin, begin := begin + sizes[place])
            ids[index, here] = torch.tensor(encoded[place].ids)
            labels[index, here] = ids[index, here].where(torch.tensor(encoded[place].learned), IGNORED)
            labels[index, here.start] = IGNORED
            owner[index, here] = place
            positions[index, here] = torch.arange(sizes[place])
    return Batch(ids, labels, owner, *((None, positions) if packed_to else ((owner >= 0).long(), None)))


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Which sizes go together, by their places: from the largest on, each to where it leaves the least room (Johnson 1973:
    at most 11/9 as many rows as the fewest possible). A size over the capacity stays alone.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        fitting = [row for row, left in enumerate(room) if left >= sizes[place]]
        if fitting:
            row = min(fitting, key=lambda row: room[row])
            rows[row].append(place)
            room[row] -= sizes[place]
        else:
            rows.append([place])
            room.append(capacity - sizes[place])
    return rows
