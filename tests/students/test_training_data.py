"""A training's conversations: divided into training and held-out parts, counted, and ordered by epoch."""

import pytest
from transformers import PreTrainedTokenizerBase

from core.config.students import StudentConfig
from core.errors import RunFailed
from core.sample import Message
from students.chat_encoding import Conversation, UnusableReason
from students.training_data import encode_and_split
from tests.students.test_chat_encoding import dialog, encoded


def test_held_out_conversations_are_drawn_by_seed_and_not_trained_on(
    talk: list[Conversation], tokenizer: PreTrainedTokenizerBase
) -> None:
    config = StudentConfig(held_out=0.25)
    first, again, other = (encode_and_split(talk, None, tokenizer, config, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.held_out != other.held_out
    assert (len(first.train), len(first.held_out)) == (9, 3)
    assert not set(first.train) & set(first.held_out)
    assert {*first.train, *first.held_out} == {encoded(one, tokenizer) for one in talk}


def test_answers_to_one_prompt_are_held_out_together(
    talk: list[Conversation], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Except if all have one prompt, as a dataset of stories may."""
    prompts = [one[:-1] for one in talk[:10]]
    rows = [[*turns, Message(role="assistant", content=f"Answer {n}.")] for turns in prompts for n in range(4)]
    places = {encoded(row, tokenizer): place // 4 for place, row in enumerate(rows)}
    for seed in range(5):
        data = encode_and_split(rows, None, tokenizer, StudentConfig(held_out=0.2), seed)
        trained, held_out = ({places[one] for one in part} for part in (data.train, data.held_out))
        assert not trained & held_out
        assert len(data.held_out) == 8
    data = encode_and_split(rows[:4], None, tokenizer, StudentConfig(held_out=0.25), 0)
    assert (len(data.train), len(data.held_out)) == (3, 1)


def test_every_conversation_is_accounted_for(talk: list[Conversation], tokenizer: PreTrainedTokenizerBase) -> None:
    odd = [dialog("user: Hi"), dialog("user: Hi"), dialog("user: " + "long " * 99, "assistant: Yes")]
    data = encode_and_split([*talk, *odd], None, tokenizer, StudentConfig(max_tokens=64), 0)
    assert data.unusable == {UnusableReason.no_answer.value: 2, UnusableReason.beyond_max_tokens.value: 1}
    assert len(data.train) + len(data.held_out) == len(talk)
    assert data.train == [encoded([*talk, *odd][place], tokenizer) for place in data.places]
    assert data.truncation
    assert (data.truncation.truncated, data.truncation.conversations) == (1, len(talk) + 3)
    prepared = encode_and_split(
        talk, talk[:1], tokenizer, StudentConfig(max_tokens=data.truncation.longest), 0, rejected=[odd[2]] * len(talk)
    )
    assert prepared.truncation == data.truncation.model_copy(
        update={"truncated": 0, "conversations": len(talk) + 1, "max_tokens": data.truncation.longest}
    ), "the worse answers count too"


@pytest.mark.parametrize(("given", "held_out"), [(0, None), (1, None), (2, 0), (0, 2)])
def test_too_little_to_train_on_fails_the_run(
    given: int, held_out: int | None, talk: list[Conversation], tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(RunFailed, match="too few"):
        encode_and_split(talk[:given], None if held_out is None else talk[:held_out], tokenizer, StudentConfig(), 0)
