"""A Modelfile for Ollama: the chat template of a student in Ollama's language, its stop words, and greedy sampling.

Written after Ollama's documentation (docs.ollama.com/modelfile and /template); Ollama was not run. Knows templates, not weights.
"""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from core.sample import Message
from students.chat_encoding import find_stop_ids, render_chat

LONGEST_CONTEXT = 8192
"""Tokens, to bound the memory; Ollama's default is shorter than most prompts with examples."""
TEXTS = ("First text, ü.", "Second text.", "Third text.", "Fourth text.")


class _TemplatePieces(NamedTuple):
    """What a chat template puts around a turn: the texts before and after it, by role."""

    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    default: str
    """The system message of conversations that have none; "" for no message."""

    def fill(self, messages: Sequence[Message]) -> str:
        """The prompt as Ollama builds it."""
        if self.default and messages[0].role != "system":
            messages = [Message(role="system", content=self.default), *messages]
        around = self._asdict()
        turns = (message.content.join(around[message.role]) for message in messages)
        return "".join([*turns, self.assistant[0]])

    def format(self) -> str:
        """In Go's template language."""
        cases = [
            f'if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}{{{{ '
            for role, (before, after) in zip(("system", "user", "assistant"), self[:3], strict=True)
        ]
        return f"{{{{- range .Messages }}}}{{{{ {'else '.join(cases)}end }}}}{{{{ end }}}}{self.assistant[0]}"


def build_modelfile(file: str, tokenizer: PreTrainedTokenizerBase, context: int) -> str | None:
    """The text of a Modelfile next to the GGUF file called `file`, for inputs of up to `context` tokens; None where Ollama's
    language cannot express the student's chat template turn by turn.
    """
    stops = [str(tokenizer.convert_ids_to_tokens(token)) for token in find_stop_ids(tokenizer)]
    pieces = _find_pieces(tokenizer, stops)
    if pieces is None:
        return None
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{pieces.format()}"""',
        *([f'SYSTEM """{pieces.default}"""'] if pieces.default else []),
        *(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops),
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",  # Ollama's 1.1 would punish the words of the prompt
        f"PARAMETER num_ctx {min(context, LONGEST_CONTEXT)}",
    ]
    return "\n".join(lines) + "\n"


def _find_pieces(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> _TemplatePieces | None:
    """Read from what the chat template makes of four turns; None unless they make each kind of conversation again."""
    roles = ("system", "user", "assistant", "user")
    talk = [Message(role=role, content=text) for role, text in zip(roles, TEXTS, strict=True)]
    whole = re.split("|".join(map(re.escape, TEXTS)), render_chat(talk, tokenizer, answer_next=True))
    alone = render_chat(talk[1:2], tokenizer, answer_next=True).split(TEXTS[1])
    if len(whole) != 5 or len(alone) != 2:
        return None
    before_system, *between, last = whole
    end = re.compile(rf"^.*?(?:{'|'.join(map(re.escape, stops))})\s*", re.DOTALL)
    ends = [found[0] if (found := end.match(text)) else "" for text in between]
    (after_system, before_user), (after_user, before_answer), (after_answer, _) = (
        (text[: len(found)], text[len(found) :]) for text, found in zip(between, ends, strict=True)
    )
    default = alone[0].removeprefix(before_system).removesuffix(between[0])
    pieces = _TemplatePieces(
        (before_system, after_system),
        (before_user, after_user),
        (before_answer, after_answer),
        default if alone[0] == default.join((before_system, between[0])) else "",
    )
    texts = [text for around in pieces[:3] for text in around] + [pieces.default]
    if last != between[1] or any(mark in text for text in texts for mark in ("{{", '"""')):
        return None
    conversations = (talk, talk[1:], talk[:2], talk[1:2])
    same = all(pieces.fill(turns) == render_chat(turns, tokenizer, answer_next=True) for turns in conversations)
    return pieces if same else None
