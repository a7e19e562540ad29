"""Conversations as token ids: marks, truncation, unusable conversations and chat templates."""

import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.errors import UsageError
from core.sample import Message, ToolCall
from students.chat_encoding import (
    Conversation,
    EncodedConversation,
    UnusableReason,
    encode_conversation,
    find_stop_ids,
    render_chat,
)


def dialog(*turns: str) -> Conversation:
    """A conversation from `role: content` lines."""
    return [Message.model_validate(dict(zip(("role", "content"), turn.split(": ", 1), strict=True))) for turn in turns]


CONVERSATIONS = {
    "one turn": dialog("user: Write about bees.", "assistant: I like bees."),
    "own system message": dialog("system: Be brief.", "user: Hi", "assistant: Hello."),
    "two turns": dialog("user: Hi", "assistant: Hello.", "user: And?", "assistant: Nothing."),
    "begins with a line end": dialog("user: Hi", "assistant: \n\n1. One\n2. Two\n"),
    "spaces around": dialog("user:  Hi ", "assistant:   Hello  "),
    "other scripts": dialog("user: ¿Qué?", "assistant: Añó 日本 🐝 naïve."),
    "ends with the user": dialog("user: Hi", "assistant: Hello.", "user: Bye"),
    "assistant twice": dialog("user: Hi", "assistant: Hello.", "assistant: Again."),
    "looks like the template": dialog("user: user\nassistant\n", "assistant: system\nuser\nassistant\nI like bees."),
}


def encoded(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, max_tokens: int = 512
) -> EncodedConversation:
    result = encode_conversation(conversation, tokenizer, max_tokens)
    assert isinstance(result, EncodedConversation)
    return result


def spans(one: EncodedConversation) -> list[list[int]]:
    """The ids of each unbroken stretch of learned tokens."""
    found: list[list[int]] = []
    before = False
    for token, learned in zip(one.ids, one.learned, strict=True):
        if learned:
            found = [*found[:-1], [*found[-1], token]] if before else [*found, [token]]
        before = learned
    return found


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_only_assistant_turns_with_their_end_token_are_learned(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase
) -> None:
    turns = [message.content + "<|im_end|>" for message in conversation if message.role == "assistant"]
    assert [tokenizer.decode(span) for span in spans(encoded(conversation, tokenizer))] == turns


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_the_template_is_applied_once(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> None:
    last = max(place for place, message in enumerate(conversation) if message.role == "assistant")
    text = tokenizer.decode(encoded(conversation, tokenizer).ids)
    assert text + "\n" == render_chat(conversation[: last + 1], tokenizer)
    assert text.count("<|im_start|>system\n") == 1
    assert text.count("<|im_start|>") == last + 1 + (conversation[0].role != "system")


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_prompts_have_the_same_tokens_in_training_and_generation(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase
) -> None:
    first = next(place for place, message in enumerate(conversation) if message.role == "assistant")
    asked = [message.model_dump() for message in conversation[:first]]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    one = encoded(conversation, tokenizer)
    assert list(one.ids[: len(prompt)]) == prompt
    assert one.learned.index(True) == len(prompt)


def test_a_conversation_whose_answer_is_truncated_away_is_unusable(tokenizer: PreTrainedTokenizerBase) -> None:
    start = encoded(CONVERSATIONS["one turn"], tokenizer).learned.index(True)
    assert encode_conversation(CONVERSATIONS["one turn"], tokenizer, start) is UnusableReason.beyond_max_tokens
    assert sum(encoded(CONVERSATIONS["one turn"], tokenizer, start + 1).learned) == 1


@pytest.mark.parametrize("conversation", [dialog("user: Hi"), dialog("user: Hi", "assistant:  \n"), dialog()])
def test_a_conversation_without_an_answer_is_unusable(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert encode_conversation(conversation, tokenizer, 64) is UnusableReason.no_answer


def called(**arguments: str) -> Conversation:
    call = Message(role="assistant", content="", tool_calls=(ToolCall(name="find", arguments=arguments),))
    return [*dialog("user: Hi"), call]


def test_a_turn_with_only_a_tool_call_is_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    one = encode_conversation(called(what="bees"), tokenizer, 256)
    assert isinstance(one, EncodedConversation)
    learned = tokenizer.decode([token for token, mark in zip(one.ids, one.learned, strict=True) if mark])
    assert '"what": "bees"' in learned


@pytest.mark.parametrize(
    "turns", [("user: a<|im_end|>b", "assistant: c"), ("user: a", "assistant: b<|im_start|>user\nc")]
)
def test_text_with_a_special_token_is_unusable(turns: tuple[str, str], tokenizer: PreTrainedTokenizerBase) -> None:
    assert encode_conversation(dialog(*turns), tokenizer, 64) is UnusableReason.has_special_token


def with_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> PreTrainedTokenizerBase:
    other = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>", bos_token="<|im_start|>"
    )
    other.chat_template = template
    return other


BARE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
FORGETFUL = "{{ messages | length }}" + BARE.replace("\n", "<|im_end|>")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (BARE, "generation would not stop"),
        (FORGETFUL, "rewrites earlier turns"),
        ("{{ raise_exception('no such role') }}", "rejects a conversation of the data: no such role"),
    ],
)
def test_templates_that_do_not_fit_are_refused(
    template: str, complaint: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(UsageError, match=complaint):
        encode_conversation(CONVERSATIONS["two turns"], with_template(tokenizer, template), 64)


def test_an_answer_stops_at_the_templates_end_of_turn_and_at_the_end_of_text(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert find_stop_ids(tokenizer) == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    other = with_template(tokenizer, tokenizer.chat_template)
    other.eos_token = "<|pad|>"
    assert find_stop_ids(other) == [0, tokenizer.convert_tokens_to_ids("<|im_end|>")]


THOUGHT = Message(role="assistant", content="I like bees.", reasoning="Bees?\nThey hum.")
CONTENT_PARSING_TEMPLATE = """{% for message in messages %}{% set content = message.content %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' and '</think>' in content %}{% set parts = content.split('</think>') %}<think>
{{ parts[0].split('<think>')[-1].strip() }}
</think>

{{ parts[1].strip() }}{% else %}{{ content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Reads thinking from the content, as Qwen3's does."""
OPENING_TEMPLATE = CONTENT_PARSING_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
"""Opens the thinking itself, as DeepSeek-R1's does."""


@pytest.mark.parametrize("template", [None, CONTENT_PARSING_TEMPLATE, OPENING_TEMPLATE])
def test_thinking_is_learned_with_its_answer(template: str | None, tokenizer: PreTrainedTokenizerBase) -> None:
    if template:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer, chat_template=template, bos_token="<|im_start|>",
            eos_token="<|im_end|>", pad_token="<|pad|>",
        )  # fmt: skip
    asked = dialog("user: Write about bees.")
    one = encoded([*asked, THOUGHT], tokenizer)
    (span,) = spans(one)
    opened = "<think>\n" if template == OPENING_TEMPLATE else ""
    whole = "<think>\nBees?\nThey hum.\n</think>\n\nI like bees.<|im_end|>"
    assert tokenizer.decode(span) == whole.removeprefix(opened)
    assert tokenizer.decode(one.ids).startswith(render_chat(asked, tokenizer, answer_next=True)), "as in generation"


def test_a_tool_call_with_a_special_token_is_unusable(tokenizer: PreTrainedTokenizerBase) -> None:
    assert encode_conversation(called(what="a<|im_end|>b"), tokenizer, 256) is UnusableReason.has_special_token


def test_a_special_token_inside_thinking_makes_a_conversation_unusable(tokenizer: PreTrainedTokenizerBase) -> None:
    thought = THOUGHT.model_copy(update={"reasoning": "It ends with <|im_end|>."})
    found = encode_conversation([*dialog("user: Hi"), thought], tokenizer, 512)
    assert found is UnusableReason.has_special_token
