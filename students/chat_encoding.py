"""Conversations as token ids through a chat template, each token marked as learned or read.

An image is in front of the text of its turn, as one token for each of its patches between two marks.

Knows the tokenizer and its chat template; knows nothing of models, batches or losses.
"""

import json
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from core.errors import UsageError
from core.sample import Message, remove_thinking
from core.storage.image_files import FittedImage, UnreadableImage, decode_image_url, fit_image
from core.thinking import join_thinking
from core.weights.gguf_files import ImageLimits

Conversation = Sequence[Message]


IMAGE_BEGIN, IMAGE_END = "<|image>", "<image|>"
"""The texts that llama.cpp puts around an image. They are tokenized like any text."""
IMAGE_MARKER = "<__media__>"
"""Stands for an image in the text of a chat template, as in llama.cpp; no text of a conversation may have it."""
PATCH_ID = 0
"""The id in place of a patch; its embedding is not read."""


class EncodedImage(NamedTuple):
    """An image in a conversation, whose patches are the tokens from `begin` on."""

    begin: int
    image: FittedImage
    color_factors: tuple[float, float, float] | None = None
    """What red, green and blue of all its pixels are multiplied by; None for unchanged colors."""

    @property
    def end(self) -> int:
        return self.begin + self.image.tokens


class EncodedConversation(NamedTuple):
    """A conversation in tokens. `learned` marks every turn of the assistant, with its end-of-turn token."""

    ids: tuple[int, ...]
    learned: tuple[bool, ...]
    images: tuple[EncodedImage, ...] = ()


class UnusableReason(StrEnum):
    """Why a conversation cannot be trained on, and what helps: a closed set."""

    no_answer = "the assistant says nothing; add an answer"
    no_question = "the assistant speaks first; add a question"
    beyond_max_tokens = "the assistant's part lies behind max_tokens; raise it or shorten the prompt"
    has_special_token = "its text holds a special token of the tokenizer; remove it"
    unreadable_image = "one of its images cannot be read; repair or remove it"


def encode_conversation(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, max_tokens: int, images: ImageLimits | None = None
) -> EncodedConversation | UnusableReason:
    """Apply the chat template once and tokenize, truncated after the assistant's last turn and at `max_tokens`.

    A turn is split from the preceding text exactly where generation would start, and the two are tokenized separately.
    The marks are therefore right by construction, and training has the same ids as generation.

    Raises:
        UsageError: if the chat template does not allow this split.
    """
    whole = encode_untruncated(conversation, tokenizer, images)
    return whole if isinstance(whole, UnusableReason) else truncate_conversation(whole, max_tokens)


def truncate_conversation(whole: EncodedConversation, max_tokens: int) -> EncodedConversation | UnusableReason:
    """The first `max_tokens` of a conversation, if any of them is learned."""
    cut = cut_conversation(whole, max_tokens)
    return cut if any(cut.learned) else UnusableReason.beyond_max_tokens


def cut_conversation(whole: EncodedConversation, max_tokens: int) -> EncodedConversation:
    """The first `max_tokens` of a conversation, or fewer where an image would be cut."""
    size = min([max_tokens, *(image.begin for image in whole.images if image.end > max_tokens)])  # whole images only
    images = tuple(image for image in whole.images if image.end <= size)
    return EncodedConversation(whole.ids[:size], whole.learned[:size], images)


def encode_untruncated(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, images: ImageLimits | None = None
) -> EncodedConversation | UnusableReason:
    """As `encode_conversation`, at any length. Without `images`, the conversation's images are left out."""
    conversation = _drop_earlier_thinking(conversation)
    if any(
        special in _join_written_text(message) for message in conversation for special in list_special_tokens(tokenizer)
    ):
        return UnusableReason.has_special_token
    if not any(message.role == "assistant" and _join_written_text(message).strip() for message in conversation):
        return UnusableReason.no_answer
    if conversation[0].role == "assistant":
        return UnusableReason.no_question
    fitted: list[FittedImage] = []
    if images:
        if any(IMAGE_MARKER in _join_written_text(message) for message in conversation):
            return UnusableReason.has_special_token
        try:
            urls = [url for message in conversation if message.role != "assistant" for url in message.images]
            fitted = [fit_image(decode_image_url(url), images.patch, images.size) for url in urls]
        except UnreadableImage:
            return UnusableReason.unreadable_image
    waiting = iter(fitted)
    ids: list[int] = []
    learned: list[bool] = []
    placed: list[EncodedImage] = []
    for read, turn in _split_turns(conversation, tokenizer, marks_images=images is not None):
        for text, mark in ((read, False), (turn, True)):
            first, *others = text.split(IMAGE_MARKER)
            tokens = _tokenize(first, tokenizer)
            for other in others:
                image = next(waiting)
                tokens += _tokenize(IMAGE_BEGIN, tokenizer)
                placed.append(EncodedImage(len(ids) + len(tokens), image))
                tokens += [PATCH_ID] * image.tokens + _tokenize(IMAGE_END, tokenizer) + _tokenize(other, tokenizer)
            ids += tokens
            learned += [mark] * len(tokens)
    return EncodedConversation(tuple(ids), tuple(learned), tuple(placed))


def _tokenize(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _drop_earlier_thinking(conversation: Conversation) -> Conversation:
    """Without the thinking before the last question, which a chat does not return to the model (as in Qwen3's template)."""
    asked = max((place for place, message in enumerate(conversation) if message.role == "user"), default=0)
    return [*remove_thinking(conversation[:asked]), *conversation[asked:]]


def _join_written_text(message: Message) -> str:
    """The written parts of a turn: its thinking, its text, and its tool calls without the template's markers."""
    return "\n".join(
        [
            message.reasoning or "",
            message.content,
            *(json.dumps(call.model_dump(), ensure_ascii=False) for call in message.tool_calls),
        ]
    )


def _split_turns(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, *, marks_images: bool = False
) -> Iterator[tuple[str, str]]:
    """For each turn of the assistant: the text since its previous turn, and the turn up to its end-of-turn token."""
    done = ""
    for place, message in enumerate(conversation):
        if message.role != "assistant":
            continue
        prompt = render_chat(conversation[:place], tokenizer, answer_next=True, marks_images=marks_images)
        answered = render_chat(conversation[: place + 1], tokenizer, marks_images=marks_images)
        if not (answered.startswith(prompt) and prompt.startswith(done)):
            raise UsageError(
                "student.start: the chat template rewrites earlier turns, so its turns cannot be separated; use "
                "conversations of one turn, or another start"
            )
        turn = answered[len(prompt) :]
        turn = turn[: _find_end_of_turn(turn, tokenizer).end()]
        yield prompt[len(done) :], turn
        done = prompt + turn


def render_chat(
    messages: Conversation, tokenizer: PreTrainedTokenizerBase, *, answer_next: bool = False, marks_images: bool = False
) -> str:
    """The chat template's text of `messages`; with `answer_next`, up to the start of the assistant's turn. `marks_images` puts a
    marker in place of each image.
    """
    turns = [
        {
            "role": message.role,
            "content": join_thinking(message.reasoning or "", message.text)
            if message.role == "assistant"
            else IMAGE_MARKER * (len(message.images) * marks_images) + message.text,
        }
        for message in messages
    ]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_next))
    except TemplateError as error:
        raise UsageError(f"student.start: the chat template rejects a conversation of the data: {error}") from None


def _find_end_of_turn(turn: str, tokenizer: PreTrainedTokenizerBase) -> re.Match[str]:
    """The special token that ends `turn`; a student that never learns it never stops."""
    ends = list(re.finditer("|".join(map(re.escape, list_special_tokens(tokenizer))), turn))
    if not ends:
        raise UsageError(
            "student.start: the chat template ends a turn without a special token, so generation would not stop; "
            "use another start, or give its template an end of turn"
        )
    return ends[-1]


def find_stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: the chat template's end of turn, and the tokenizer's end of text if it differs."""
    example = [Message(role="user", content="a"), Message(role="assistant", content="b")]
    _, turn = next(_split_turns(example, tokenizer))
    ids = {tokenizer.convert_tokens_to_ids(_find_end_of_turn(turn, tokenizer).group()), tokenizer.eos_token_id}
    return sorted(ids - {None})


def find_pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding token; without one, the end-of-turn token, since padding is neither attended to nor learned."""
    return find_stop_ids(tokenizer)[0] if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that conversations can be encoded turn by turn.

    Raises:
        UsageError: if there is no chat template, or if the tokenizer puts a space before each text (as Llama 2's does).
    """
    if not tokenizer.chat_template:
        raise UsageError("student.start: the tokenizer has no chat template; start from an instruct model")
    ids = [token for text in ("a b", "c") for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if tokenizer.decode(ids) != "a bc":
        raise UsageError("student.start: the tokenizer adds characters to its input; use a model with a byte-level BPE")


def list_special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """All special tokens, longest first, so that a prefix never matches before a longer token."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return sorted({*added, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token))
