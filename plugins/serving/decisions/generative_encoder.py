"""A small generative student as the encoder of a decision student: a text is read as the probabilities of its answers.

The student answers all questions in one reply, which its schema keeps to the possible answers. Heads on the logarithms of the
probabilities calibrate them (matrix scaling: Guo et al. 2017, arXiv 1706.04599), so that thresholds, guarantee and server are
those of any other encoder. Knows no label.
"""

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.sample import ReplyToken
from plugins.serving.decision_students.decision_student import DecisionStudent, read_decision_student
from plugins.serving.decision_students.text_encoders import GENERATIVE_FILE
from plugins.serving.decisions.label_probabilities import TOP_LOGPROBS, read_label_probabilities
from plugins.serving.decisions.questions import REPLY_TOKENS, DecisionQuestion, build_response_format
from plugins.serving.relay import CompletionRelay, RelayError, open_relay
from teachers.openai_chat import list_tokens, read_reply_tokens

SLOTS = 4
"""Texts that are answered at once."""
SHOWN_TEXTS = 100
"""Between two lines of progress."""
TOO_LONG = 400
"""The status for a text that does not fit a slot."""
LEAST_PROBABILITY = 1e-6
"""Smaller ones count as this."""


class GenerativeEncoder:
    """Serves the weights with llama.cpp during a `with` block, in a thread with an event loop of its own."""

    def __init__(
        self, weights: Path, questions: Sequence[DecisionQuestion], show: Callable[[str], None] = lambda _text: None
    ) -> None:
        """`show` gets the progress of more than `SHOWN_TEXTS` texts; what it raises ends their encoding."""
        self._show = show
        self.unreadable = 0
        """Replies that gave no probabilities: all answers counted as equally likely."""
        self._config = TeacherConfig(model=f"local/{weights.resolve()}", max_concurrent=SLOTS)
        self._questions = [question for question in questions if question.type != "span"]
        self._wording = "\n".join(f"- {question.wording}" for question in questions)
        self._response_format = build_response_format(questions)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._slots = asyncio.Semaphore(SLOTS)
        self._closing = asyncio.Event()
        self._opened: Future[CompletionRelay] = Future()

    def __enter__(self) -> Self:
        self._thread.start()
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(), self._loop)
        try:
            self._opened.result()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        try:
            self._serving.result()
        finally:
            self._stop()

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """A row for each text, a column for each answer of each question: from 1 for a certain answer to 0 for one of
        `LEAST_PROBABILITY`, in the logarithm; of `several_of`, 1 for each label of the reply.

        Raises:
            ProviderError: if llama.cpp does not answer.
        """
        rows = []
        for start in range(0, len(texts), SHOWN_TEXTS):
            part = texts[start : start + SHOWN_TEXTS]
            rows.append(asyncio.run_coroutine_threadsafe(self._encode_all(part), self._loop).result())
            if len(texts) > SHOWN_TEXTS:
                self._show(f"decisions: {start + len(part):,} of {len(texts):,} texts answered")
        return np.concatenate(rows)

    async def _serve(self) -> None:
        try:
            async with open_relay(self._config) as relay:
                self._opened.set_result(relay)
                await self._closing.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _encode_all(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        return np.array(await asyncio.gather(*map(self._encode_text, texts)))

    async def _encode_text(self, text: str) -> list[float]:
        from plugins.serving.decisions.family import format_decision_prompt  # takes all families with it

        messages = [{"role": "user", "content": format_decision_prompt(text, self._wording)}]
        body = {
            "messages": messages, "temperature": 0, "max_tokens": REPLY_TOKENS, "logprobs": True,
            "top_logprobs": TOP_LOGPROBS, "response_format": self._response_format,
        }  # fmt: skip
        try:
            async with self._slots:
                completion = await self._opened.result().complete(body)
        except RelayError as error:
            if error.status != TOO_LONG:
                raise ProviderError(str(error)) from None
            completion = {}
        return self._build_row(*_read_reply(completion))

    def _build_row(self, reply: dict[str, Any], tokens: Sequence[ReplyToken]) -> list[float]:
        row: list[float] = []
        for question in self._questions:
            classes = question.classes
            found: dict[str, float] | None = None
            if question.has_single_class:
                found = read_label_probabilities(question, tokens)
            elif isinstance(labels := reply.get(question.name), list):
                found = {label: float(label in labels) for label in classes}
            if found is None:
                self.unreadable += 1
                found = dict.fromkeys(classes, 1 / len(classes))
            row += [1 - math.log(max(found[name], LEAST_PROBABILITY)) / math.log(LEAST_PROBABILITY) for name in classes]
        return row


def _read_reply(completion: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[ReplyToken, ...]]:
    """The answers of a completion, and the tokens that write them; none where it is no object."""
    try:
        choice = completion["choices"][0]
        content = choice["message"]["content"]
        reply = json.loads(content)
        return (reply if isinstance(reply, dict) else {}), read_reply_tokens(list_tokens(choice), content, TOP_LOGPROBS)
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}, ()


@contextmanager
def open_decision_student(folder: Path) -> Iterator[DecisionStudent]:
    """The student in a folder; the model of a generative one is served during the block.

    Raises:
        UsageError: as `read_decision_student`, or if the weights cannot be served.
        ProviderError: if llama.cpp does not load them.
    """
    student = read_decision_student(folder)
    if student.encoder != GENERATIVE_FILE:
        yield student
        return
    with GenerativeEncoder(folder / GENERATIVE_FILE, student.questions) as encoder:
        yield student.model_copy(update={"own_encoder": encoder})
