"""A training's conversations: divided into training and held-out parts, counted, and ordered by epoch."""

import pytest
from transformers import PreTrainedTokenizerBase

from core.config.students import StudentConfig
from core.errors import RunFailed, UsageError
from core.sample import Message
from students.chat_encoding import Conversation, UnusableReason
from students.training_data import encode_and_split
from tests.students.conftest import TEMPLATE, conversations
from tests.students.test_chat_encoding import dialog, encoded, with_template


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
    size = len(talk)
    assert data.unusable == {
        UnusableReason.no_answer: [size + 1, size + 2], UnusableReason.beyond_max_tokens: [size + 3]
    }  # fmt: skip
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
        encode_and_split(
            talk[:given], None if held_out is None else talk[:held_out], tokenizer, StudentConfig(), 0
        ).check()


@pytest.mark.parametrize(
    ("rows", "max_tokens", "sentence"),
    [
        (conversations()[:3], 16, "0 of 3 .*; conversation 1: the assistant's part lies behind max_tokens; raise .* = 16 and"),
        ([dialog("user: Hi"), *conversations()[:1]], 64, "1 of 2 .*; conversation 1: the assistant says nothing; add"),
    ],
)  # fmt: skip
def test_a_training_without_learned_tokens_is_refused(
    rows: list[Conversation], max_tokens: int, sentence: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(UsageError, match=sentence):
        encode_and_split(rows, None, tokenizer, StudentConfig(max_tokens=max_tokens), 0).check()


def test_a_conversation_that_its_template_rejects_is_named(
    talk: list[Conversation], tokenizer: PreTrainedTokenizerBase
) -> None:
    picky = with_template(
        tokenizer, f"{{% if messages | length > 2 %}}{{{{ raise_exception('one turn') }}}}{{% endif %}}{TEMPLATE}"
    )
    rows = [*talk, dialog("user: Hi", "assistant: Hello.", "user: And?", "assistant: Nothing.")]
    with pytest.raises(UsageError, match=f"^conversation {len(rows)}: .*rejects a conversation of the data: one turn"):
        encode_and_split(rows, None, picky, StudentConfig(), 0)
