"""Replay conversations: requests that a start writes by itself and its answers to them, stored on disk.

Knows the start and settings of each file, and refuses any other; knows nothing of losses or training.

A chat template's text is cut where the user's words would begin. A chat model continues it with a request of the kind that it
was trained on (Magpie, arXiv 2406.08464), so no authored data is needed. Half of the requests begin with a given verb, as most
recipes' do: a student should not answer every request of this form as it answers the recipe's.
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.config.students import ReplayConfig
from core.errors import RunFailed, UsageError
from core.project_files import SHIPPED
from core.sample import Message, json_digest
from core.storage.atomic_files import write_text
from students.chat_encoding import EncodedConversation, find_pad_id, find_stop_ids, list_special_tokens, render_chat
from students.generation import sample_texts

REPLAY_BATCH = 32
"""Conversations written at once: larger batches are hardly faster on a CPU, and the last one is written whole."""
REQUEST_TOKENS = 96
"""The longest request; a longer one is dropped."""
REQUEST_TOP_P = 0.95
"""Of requests, at temperature 1 for variety: less likely tokens lead to requests without sense."""
OPENINGS = (
    "Write", "Give", "Find", "Create", "Make", "Describe", "Design", "Generate", "Explain", "Tell", "Identify", "List", "Suggest",
    "Compare", "Summarize", "Discuss",
)  # fmt: skip
"""First words of half of the requests: verbs that often begin instructions, such as those that Self-Instruct counts (arXiv
2212.10560, figure 3). Chosen by hand."""
REPLAY_SEED = 7
"""The same for all trainings: the conversations belong to the start."""
MIN_LEARNED, MIN_HELD_OUT = 128, 8
"""The fewest different conversations to learn from, unless the recipe allows fewer, and to hold out."""
HELD_OUT_SHARE = 0.1
MAX_ATTEMPTS = 8
"""Requests sampled at most, per conversation that is wanted: some are unfinished, empty or repeated."""
MARKER = "REQUEST"
PACKAGED_REPLAY = SHIPPED / "data" / "replay" / "smollm2-135m.jsonl"
"""The embedded teacher's conversations by the default settings, so that no user waits for them."""


class ReplayTexts(NamedTuple):
    """A start's own conversations, divided."""

    learned: list[EncodedConversation]
    held_out: list[EncodedConversation]


NO_REPLAY = ReplayTexts([], [])


class UserTurn(NamedTuple):
    """How a chat template surrounds a user's first request."""

    before: str
    after: str
    """Up to where the answer begins."""
    stop: int
    """The special token that ends the user's turn."""


class _ReplayWriter:
    """Writes replay conversations in batches; each batch depends on the start, the settings and its number only."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: ReplayConfig) -> None:
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._turn = find_user_turn(tokenizer)
        self._pad, self._stop = find_pad_id(tokenizer), find_stop_ids(tokenizer)

    def write_batch(self, batch: int, known: set[str]) -> Iterator[dict[str, Any]]:
        """The conversations of a batch whose request is not in `known`, which is extended."""
        rng = random.Random(f"replay batch {batch} of {REPLAY_SEED}")
        requests = [request for request in self._sample_requests(rng) if _add_request(request, known)]
        if not requests:
            return
        prompts = [self._encode(f"{self._turn.before}{request}{self._turn.after}") for request in requests]
        answers = sample_texts(
            self._model,
            prompts,
            stop=self._stop,
            pad=self._pad,
            max_new_tokens=self._config.max_tokens,
            temperature=self._config.temperature,
            seed=rng.getrandbits(63),
        )
        for request, prompt, answer in zip(requests, prompts, answers, strict=True):
            text = str(self._tokenizer.decode(list(answer), skip_special_tokens=True))
            yield {"request": request, "answer": text, "prompt": prompt, "learned": answer}

    def _sample_requests(self, rng: random.Random) -> Iterator[str]:
        """The finished requests of a batch, without special tokens in them."""
        openings = [rng.choice(OPENINGS) if number % 2 else "" for number in range(REPLAY_BATCH)]
        sampled = sample_texts(
            self._model,
            [self._encode(self._turn.before + opening) for opening in openings],
            stop=sorted({self._turn.stop, *self._stop}),
            pad=self._pad,
            max_new_tokens=REQUEST_TOKENS,
            temperature=1.0,
            top_p=REQUEST_TOP_P,
            seed=rng.getrandbits(63),
        )
        special = list_special_tokens(self._tokenizer)
        for opening, tokens in zip(openings, sampled, strict=True):
            rest = str(self._tokenizer.decode(list(tokens[:-1]), clean_up_tokenization_spaces=False))
            request = (opening + rest).strip()
            if tokens[-1] == self._turn.stop and not any(token in request for token in special):
                yield request

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _add_request(request: str, known: set[str]) -> bool:
    """Whether `request` has words and is new, in any spacing and case; if so, it is added to `known`."""
    normal = " ".join(request.lower().split())
    if not any(character.isalnum() for character in normal) or normal in known:
        return False
    known.add(normal)
    return True


def find_user_turn(tokenizer: PreTrainedTokenizerBase) -> UserTurn:
    """The text around a user's request, with the template's own default system prompt.

    Raises:
        UsageError: if the template does not end a user's turn with a special token.
    """
    text = render_chat([Message(role="user", content=MARKER)], tokenizer, answer_next=True)
    before, found, after = text.partition(MARKER)
    end = next((token for token in list_special_tokens(tokenizer) if after.lstrip().startswith(token)), None)
    if not found or end is None:
        raise UsageError(
            "student.replay: the start's chat template does not end a user's turn with a special token, so the start cannot "
            "write requests; leave replay out"
        )
    return UserTurn(before, after, int(tokenizer.convert_tokens_to_ids(end)))  # type: ignore[arg-type]


def replay_digest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: ReplayConfig) -> str:
    """The identity of replay conversations: the start's weights, tokens and template, and the settings."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return json_digest(
        {
            "weights": weights.hexdigest(),
            "tokens": sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]),
            "template": tokenizer.chat_template,
            "config": config.model_dump(include={"max_tokens", "temperature"}),
            "constants": [REPLAY_BATCH, REQUEST_TOKENS, REQUEST_TOP_P, REPLAY_SEED, *OPENINGS],
        }
    )


def _count_replay(config: ReplayConfig, rows: int) -> tuple[int, int]:
    """The different replay conversations to learn from, and those to hold out, for this number of training rows."""
    learned = min(config.most, max(MIN_LEARNED, round(config.share * rows)))
    return learned, max(MIN_HELD_OUT, round(HELD_OUT_SHARE * learned))


def load_replay(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: ReplayConfig,
    rows: int,
    path: Path,
    *,
    progress: Callable[[str], None],
) -> ReplayTexts:
    """The conversations in `path`, after those that are missing were written by `model`, with each finished batch stored. A new
    file begins with the packaged conversations, if they are this model's.

    The first ones in the file are held out, so a file with more than are needed gives the same.

    Raises:
        UsageError: if the file is of another start or other settings.
        RunFailed: if the start writes too few usable requests.
    """
    learned, held_out = _count_replay(config, rows)
    wanted = learned + held_out
    digest = replay_digest(model, tokenizer, config)
    if not path.exists() and is_packaged(digest):
        write_text(path, PACKAGED_REPLAY.read_text(encoding="utf-8"))
    batches, found = _read_replay_file(path, digest)
    if len(found) < wanted:
        writer = _ReplayWriter(model, tokenizer, config)
        known: set[str] = set()
        for row in found:
            _add_request(str(row["request"]), known)
        began, before = time.monotonic(), len(found)
        while len(found) < wanted and batches * REPLAY_BATCH < MAX_ATTEMPTS * max(wanted, REPLAY_BATCH):
            progress(f"student: the start writes replay conversations, {len(found)} of {wanted}")
            found += writer.write_batch(batches, known)
            batches += 1
            head = {"digest": digest, "batches": batches}
            write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (head, *found)))
        progress(f"student: {len(found) - before} replay conversations written in {time.monotonic() - began:.0f} s")
    if len(found) < 2 * MIN_HELD_OUT:
        raise RunFailed(
            f"student.replay: the start wrote {len(found)} usable requests in {batches * REPLAY_BATCH} attempts; leave replay "
            "out, or choose a start that is an instruct model with more of its layers"
        )
    texts = [_encode_row(row) for row in found[:wanted]]
    held_out = min(held_out, max(MIN_HELD_OUT, len(texts) // 4))
    return ReplayTexts(texts[held_out:], texts[:held_out])


def _read_replay_file(path: Path, digest: str) -> tuple[int, list[dict[str, Any]]]:
    """The number of batches written to the file, and its conversations; none if there is no file. Raises UsageError."""
    if not path.exists():
        return 0, []
    try:
        head, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        same = head["digest"] == digest
        batches = int(head["batches"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{path}: is not a file of replay conversations; remove it or name another one") from None
    if not same:
        raise UsageError(
            f"{path}: its replay conversations are of another start or other settings; remove it, or name another file as "
            "student.replay.cache"
        )
    return batches, rows


def is_packaged(digest: str) -> bool:
    """Whether the packaged conversations are of this start and these settings."""
    with PACKAGED_REPLAY.open(encoding="utf-8") as file:
        return bool(json.loads(next(file))["digest"] == digest)


def read_held_out_replay(path: Path, count: int) -> list[EncodedConversation]:
    """The held-out conversations of a training, `count` of them, in its file."""
    _, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [_encode_row(row) for row in rows[:count]]


def _encode_row(row: dict[str, Any]) -> EncodedConversation:
    prompt, answer = tuple(row["prompt"]), tuple(row["learned"])
    return EncodedConversation(prompt + answer, (False,) * len(prompt) + (True,) * len(answer))
