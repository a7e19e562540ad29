"""An exported file compared with its student: the same conversations by torch, with the student's weights, and by llama.cpp.

The chat template, the tokens of a prompt and the end of a turn must be equal: a file that reads other prompts than those of the
training answers worse, and nothing says so. Loss and first choices may differ by what the number format loses.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.errors import ProviderError
from core.sample import Message
from students.chat_encoding import (
    Conversation,
    EncodedConversation,
    encode_conversation,
    find_pad_id,
    find_stop_ids,
    render_chat,
)
from students.gguf_export import read_student
from students.predictions import build_batch, predict_tokens
from teachers.local_llama import llama_settings, run_llama_server

MOST_ROWS = 8
"""At once, each in a slot of its own."""
MOST_TOKENS = 24
"""Of the answers of a row that are compared."""
SLOT_TOKENS = 1024
"""Of prompt and answer; what is longer is not compared."""
CERTAIN = 1000.0
"""Added to a logit, so that its token is the next one."""
PATIENCE_SECONDS = 120.0
EXAMPLE = ("Name two birds that live near water, and 3 that don't.", "Heron and kingfisher.")
"""For a student whose rows are unknown."""


class FileCheck(NamedTuple):
    """How an exported file compares with its student."""

    rows: int
    tokens: int
    """Tokens of answers that were compared, each after the row's own tokens."""
    same_choices: int
    """Tokens at which both models' most probable token is the same."""
    student_loss: float
    """Nats per token by torch; `file_loss` by llama.cpp."""
    file_loss: float
    faults: list[str]
    """How the file reads prompts differently, in words."""

    def format(self) -> str:
        if not self.tokens:
            return "check: no row could be compared"
        change = self.file_loss / self.student_loss - 1
        return (
            f"check: {self.rows} rows by torch and by llama.cpp: the same first choice at {self.same_choices} of {self.tokens} "
            f"tokens, loss {self.student_loss:.3f} and {self.file_loss:.3f} ({change:+.1%})"
        )


async def check_file(student: Path, file: Path, rows: Sequence[Conversation]) -> FileCheck:
    """Compare `file` with the student in the folder `student` on the first of its `rows`; on an example if there are none.

    Raises:
        ProviderError: if llama.cpp cannot load the file.
    """
    model, tokenizer = read_student(student)
    example = [Message(role=role, content=text) for role, text in zip(("user", "assistant"), EXAMPLE, strict=True)]
    settings = llama_settings(str(file), MOST_ROWS, SLOT_TOKENS)
    async with run_llama_server(str(file), settings, lambda _: None, PATIENCE_SECONDS) as server:
        headers = {"Authorization": f"Bearer {server.server.key}"}
        url = server.server.url.removesuffix("/v1")
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_SECONDS) as client:
            return await _compare(model, tokenizer, _FileReader(client, str(file)), [*rows[:MOST_ROWS]] or [example])


class _FileReader:
    """What llama.cpp does with the file."""

    def __init__(self, client: httpx.AsyncClient, who: str) -> None:
        self._client, self._who = client, who

    async def post(self, path: str, **body: Any) -> Any:
        response = await self._client.post(path, json=body)
        if response.is_error:
            raise ProviderError(f"{self._who}: llama.cpp refuses {path}: {response.text[:300]}")
        return response.json()

    async def render(self, messages: Conversation) -> str:
        turns = [{"role": message.role, "content": message.text} for message in messages]
        return str((await self.post("/apply-template", messages=turns))["prompt"])

    async def tokenize(self, text: str) -> list[int]:
        """As llama.cpp reads the prompt of a chat."""
        found = await self.post("/tokenize", content=text, add_special=True, parse_special=True)
        return list(found["tokens"])

    async def complete(self, ids: Sequence[int], forced: int, *, slot: int = 0, count: int = 1) -> Any:
        """`count` tokens, of which the first is `forced`, with the log probability that it has otherwise."""
        return await self.post(
            "/completion", prompt=list(ids), n_predict=count, temperature=0, n_probs=1, logit_bias=[[forced, CERTAIN]],
            id_slot=slot,
        )  # fmt: skip


_Prediction = tuple[Sequence[int], int, float, int]
"""The tokens before a token, the token, torch's loss on it, and torch's most probable token in its place."""


async def _compare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: _FileReader, rows: Sequence[Conversation]
) -> FileCheck:
    faults = [fault for row in rows if (fault := await _find_prompt_fault(tokenizer, file, row))]
    faults += await _find_stop_faults(tokenizer, file, rows[0])
    encoded = [encode_conversation(row, tokenizer, SLOT_TOKENS - 2) for row in rows]
    used = [row for row in encoded if isinstance(row, EncodedConversation)]
    found = await asyncio.gather(
        *(_compare_row(file, slot, list(_predict_row(model, tokenizer, row))) for slot, row in enumerate(used))
    )
    tokens = [token for row in found for token in row]
    count = max(1, len(tokens))
    return FileCheck(
        rows=len(used),
        tokens=len(tokens),
        same_choices=sum(token.is_same for token in tokens),
        student_loss=sum(token.student_loss for token in tokens) / count,
        file_loss=sum(token.file_loss for token in tokens) / count,
        faults=list(dict.fromkeys(faults)),
    )


class _ComparedToken(NamedTuple):
    student_loss: float
    file_loss: float
    is_same: bool
    """Whether both models' most probable token in its place is the same."""


async def _compare_row(file: _FileReader, slot: int, predicted: Sequence[_Prediction]) -> list[_ComparedToken]:
    tokens = []
    for before, token, loss, choice in predicted:
        reply = await file.complete(before, token, slot=slot)
        for found in reply.get("completion_probabilities", [])[:1]:  # none for a part of a character
            tokens.append(_ComparedToken(loss, -found["logprob"], found["top_logprobs"][0]["id"] == choice))
    return tokens


@torch.no_grad()
def _predict_row(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: EncodedConversation
) -> Iterator[_Prediction]:
    """Of the first learned tokens."""
    predicted = predict_tokens(model, build_batch([row], find_pad_id(tokenizer)))
    losses = functional.cross_entropy(predicted.logits, predicted.targets, reduction="none").tolist()
    places = [place for place, learned in enumerate(row.learned) if learned and place]
    choices = predicted.logits.argmax(1).tolist()
    for place, loss, choice in list(zip(places, losses, choices, strict=True))[:MOST_TOKENS]:
        yield row.ids[:place], row.ids[place], loss, choice


async def _find_prompt_fault(tokenizer: PreTrainedTokenizerBase, file: _FileReader, row: Conversation) -> str | None:
    """How the file's prompt for the first answer of a conversation differs from the student's, in words; None if it is equal."""
    asked = row[: next((place for place, message in enumerate(row) if message.role == "assistant"), len(row))]
    ours, theirs = render_chat(asked, tokenizer, answer_next=True), await file.render(asked)
    ids, read = list(tokenizer(ours, add_special_tokens=False)["input_ids"]), await file.tokenize(theirs)
    if ids == read:
        return None
    if not ours.endswith(theirs):  # llama.cpp leaves out a first token that it adds to the tokens
        return f"its chat template makes {_quote_difference(theirs, ours)}"
    texts = [tokenizer.convert_ids_to_tokens(tokens) for tokens in (read, ids)]
    return f"it splits a prompt into the tokens {_quote_difference(*texts)}"


def _quote_difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    pairs = enumerate(zip(theirs, ours, strict=False))
    place = next((place for place, (one, other) in pairs if one != other), min(len(theirs), len(ours)))
    first = max(0, place - 2)
    return f"{theirs[first : place + 20]!r} where the student was trained on {ours[first : place + 20]!r}"


async def _find_stop_faults(tokenizer: PreTrainedTokenizerBase, file: _FileReader, row: Conversation) -> list[str]:
    """The ends of a turn at which llama.cpp would write on."""
    ids = list(tokenizer(render_chat(row[:1], tokenizer, answer_next=True), add_special_tokens=False)["input_ids"])
    faults = []
    for stop in find_stop_ids(tokenizer):
        reply = await file.complete(ids[-SLOT_TOKENS // 2 :], stop, count=2)
        if reply["stop_type"] != "eos":
            faults.append(
                f"it writes on after {tokenizer.convert_ids_to_tokens(stop)!r}, which ends the student's turns"
            )
    return faults
