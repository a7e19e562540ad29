"""`stillhouse serve` for a decision student: `/v1/decide`, and OpenAI's `/v1/chat/completions` with a JSON schema.

The student decides in batches for many clients at once, the teacher where the student's guarantee does not reach.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, NamedTuple

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.sample import join_conversation
from flows.application_server import serve_application
from flows.terminal.console import SESSION, CommandSession, UserInterrupt
from plugins.serving.cascade.chat_protocol import ChatError, ChatRequest, build_request_error, read_chat_request
from plugins.serving.cascade.chat_server import create_application, mark_busy, read_json_body
from plugins.serving.cascade.serving_setup import NO_TEACHER, ServingOptions, build_option_teacher
from plugins.serving.decision_students.decision_student import Decision, DecisionStudent
from plugins.serving.decision_students.drift_watch import DriftStatus, DriftWatch
from plugins.serving.decisions.generative_encoder import open_decision_student
from plugins.serving.decisions.questions import PROMPTS, REPLY_TOKENS, Answer, DecisionQuestion, build_response_format
from plugins.serving.relay import CompletionRelay, RelayError, open_relay
from prompts import load_prompt
from teachers.openai_chat import find_json_object

MOST_TEXTS = 256
"""Texts of one batch of the student."""


class ServedDecision(NamedTuple):
    answer: Answer | None
    """None for a span where no teacher is connected or it failed."""
    answered_by: Literal["student", "teacher", "nobody"]
    certain: bool
    """Whether the student's guarantee covers it, or the teacher gave it."""
    score: float | None
    """The student's probability of its own answer; None where it has no head."""
    probabilities: dict[str, float]
    """The student's, of each class."""

    def to_json(self) -> dict[str, Any]:
        rounded = {name: round(value, 6) for name, value in self.probabilities.items()}
        score = None if self.score is None else round(self.score, 6)
        return {**self._asdict(), "score": score, "probabilities": rounded}


class DecisionService:
    """Answers the questions of one student."""

    def __init__(
        self, student: DecisionStudent, teacher: CompletionRelay | None = None, audit: float = 0.0, seed: int = 7
    ) -> None:
        """`audit` is the share of certain decisions that the teacher answers too, to watch the agreement."""
        self.student = student
        self.teacher = teacher
        self.audit = audit
        self.counts: Counter[str] = Counter()
        self.watches = {head.question.name: DriftWatch(head.question.name, head.guarantee) for head in student.heads}
        self._rng = Random(seed)
        self._waiting: list[tuple[str, asyncio.Future[dict[str, Decision]]]] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def questions(self) -> dict[str, DecisionQuestion]:
        return {question.name: question for question in self.student.questions}

    async def decide(self, texts: Sequence[str], names: Sequence[str]) -> list[dict[str, ServedDecision]]:
        """The decisions about each text on the questions of these names."""
        own = await asyncio.gather(*map(self._decide_by_student, texts))
        return await asyncio.gather(
            *(self._complete(text, decided, names) for text, decided in zip(texts, own, strict=True))
        )

    def read_drift(self) -> dict[str, DriftStatus]:
        return {name: watch.read_status() for name, watch in self.watches.items()}

    async def _decide_by_student(self, text: str) -> dict[str, Decision]:
        """The student's decisions; texts that wait while a batch is computed make the next batch."""
        waiting: asyncio.Future[dict[str, Decision]] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, waiting))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await waiting

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_TEXTS], self._waiting[MOST_TEXTS:]
            try:
                decided = await asyncio.to_thread(self.student.decide, [text for text, _ in batch])
            except Exception as error:  # each client of the batch gets it
                for _, waiting in batch:
                    if not waiting.done():
                        waiting.set_exception(error)
                continue
            for (_, waiting), decisions in zip(batch, decided, strict=True):
                if not waiting.done():  # its client may have left
                    waiting.set_result(decisions)

    async def _complete(self, text: str, own: dict[str, Decision], names: Sequence[str]) -> dict[str, ServedDecision]:
        """The student's decisions, with the teacher's in the place of uncertain ones."""
        for name in own.keys() & names:
            self.watches[name].add_score(own[name].score)
        unsure = [name for name in names if name not in own or not own[name].certain]
        audited = [name for name in names if name not in unsure and self._rng.random() < self.audit]
        given = await self._ask_teacher(text, [*unsure, *audited]) if self.teacher and (unsure or audited) else {}
        for name in audited:
            if name in given:
                agrees = self.questions[name].is_same_answer(own[name].answer, given[name])
                self.watches[name].add_audit(agrees=agrees)
        served = {name: _combine(own.get(name), given.get(name) if name in unsure else None) for name in names}
        self.counts.update(decision.answered_by for decision in served.values())
        return served

    async def _ask_teacher(self, text: str, names: Sequence[str]) -> dict[str, Answer]:
        """The teacher's answers; none where it fails or its reply does not fit."""
        assert self.teacher is not None, "it is connected"
        asked = [self.questions[name] for name in names]
        wording = "\n".join(f"- {question.wording}" for question in asked)
        messages = load_prompt("decisions", "generator", None, PROMPTS).fill({"text": text, "wording": wording})
        body = {
            "messages": [message.model_dump(mode="json") for message in messages],
            "temperature": 0, "max_tokens": REPLY_TOKENS, "response_format": build_response_format(asked),
        }  # fmt: skip
        try:
            completion = await self.teacher.complete(body)
            reply = json.loads(find_json_object(completion["choices"][0]["message"]["content"] or ""))
            return {question.name: question.parse_answer(reply[question.name]) for question in asked}
        except (RelayError, ValueError, KeyError, TypeError, IndexError, RecursionError):
            self.counts["teacher_failed"] += 1
            return {}


def _combine(own: Decision | None, given: Answer | None) -> ServedDecision:
    score, probabilities = (own.score, own.probabilities) if own else (None, {})
    if given is not None:
        return ServedDecision(given, "teacher", True, score, probabilities)
    if own is None:
        return ServedDecision(None, "nobody", False, None, {})
    return ServedDecision(own.answer, "student", own.certain, score, probabilities)


MOST_REQUEST_TEXTS = 1000
MODEL = "stillhouse"
Text = Annotated[str, Field(min_length=1)]


class DecideRequest(BaseModel):
    """The body of `/v1/decide`."""

    model_config = ConfigDict(extra="forbid")

    text: Text | None = None
    texts: list[Text] | None = Field(None, min_length=1, max_length=MOST_REQUEST_TEXTS)
    """In the place of `text`."""
    questions: list[str] | None = Field(None, min_length=1)
    """Names of the questions to answer; without it, all."""


def build_decision_application(service: DecisionService, host: str, names: Sequence[str] = ()) -> web.Application:
    app = create_application(host, names)
    start_time = int(time.time())

    async def decide(request: web.Request) -> web.Response:
        asked = _read_decide_request(await read_json_body(request))
        texts = asked.texts or [asked.text or ""]
        wanted = _check_names(service, asked.questions)
        with mark_busy(request):
            decided = await service.decide(texts, wanted)
        rows = [{name: decision.to_json() for name, decision in row.items()} for row in decided]
        return web.json_response({"decisions": rows if asked.texts else rows[0]})

    async def completions(request: web.Request) -> web.Response:
        asked = read_chat_request(await read_json_body(request))
        wanted = _check_chat(service, asked)
        text = join_conversation(asked.plain_turns)
        with mark_busy(request):
            (row,) = await service.decide([text], wanted)
        answers = {name: decision.answer for name, decision in row.items()}
        message = {"role": "assistant", "content": json.dumps(answers, ensure_ascii=False)}
        return web.json_response({
            "id": f"decision-{time.time_ns()}", "object": "chat.completion", "created": int(time.time()), "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            "stillhouse": {"decisions": {name: decision.to_json() for name, decision in row.items()}},
        })  # fmt: skip

    async def models(_request: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": start_time, "owned_by": "stillhouse"}
        return web.json_response({"object": "list", "data": [model]})

    async def health(_request: web.Request) -> web.Response:
        drift = {name: status.to_json() for name, status in service.read_drift().items()}
        counts = {name: service.counts[name] for name in ("student", "teacher", "nobody", "teacher_failed")}
        return web.json_response({"status": "ok", **counts, "questions": drift})

    app.router.add_post("/v1/decide", decide)
    app.router.add_post("/v1/chat/completions", completions)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", health)
    return app


def _read_decide_request(body: Any) -> DecideRequest:
    try:
        asked = DecideRequest.model_validate(body)
    except ValidationError as error:
        raise build_request_error(error) from None
    if (asked.text is None) == (asked.texts is None):
        raise ChatError("give either `text` or `texts`", param="text")
    for text in [asked.text or "", *(asked.texts or [])]:
        _check_characters(text, "text")
    return asked


def _check_characters(text: str, part: str) -> None:
    """JSON can hold halves of surrogate pairs, on which the encoder would fail for all texts of its batch."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ChatError(f"{part}: has half of a surrogate pair, which is no character", param=part) from None


def _check_names(service: DecisionService, names: Sequence[str] | None) -> list[str]:
    known = list(service.questions)
    if unknown := [name for name in names or () if name not in known]:
        raise ChatError(
            f"questions: {unknown[0]!r} is unknown; this student answers {', '.join(known)}", param="questions"
        )
    return list(dict.fromkeys(names)) if names else known


def _check_chat(service: DecisionService, asked: ChatRequest) -> list[str]:
    """The questions that a chat request's schema asks for: all without a schema."""
    if asked.stream:
        raise ChatError("stream: a decision is one JSON object, sent whole; leave `stream` out", param="stream")
    if part := asked.teacher_only_part:
        raise ChatError(f"{part}: a decision student reads text only", param=part)
    if not join_conversation(asked.plain_turns).strip():
        raise ChatError("messages: only system prompts have text; add a turn of the user", param="messages")
    _check_characters(join_conversation(asked.plain_turns), "messages")
    schema = asked.reply_schema
    if schema is None:
        return _check_names(service, None)
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not properties:
        raise ChatError(
            "response_format: the schema has no properties; name the questions there", param="response_format"
        )
    return _check_names(service, list(properties))


async def _run_decision_server(
    student: DecisionStudent, teacher: TeacherConfig | None, audit: float, host: str, port: int, names: Sequence[str],
    session: CommandSession, started: Callable[[str], None],
) -> None:  # fmt: skip
    """Serve the student until the session's stop signal, and report who answered and what speaks against the guarantee.

    Raises:
        UsageError: if the address cannot be bound.
        StillhouseError: if a local teacher cannot be started.
    """
    async with AsyncExitStack() as stack:
        relay = await session.run_unless_stopped(stack.enter_async_context(open_relay(teacher))) if teacher else None
        service = DecisionService(student, relay, audit)
        app = build_decision_application(service, host, names)
        await serve_application(app, host, port, session, lambda origin: started(f"{origin}/v1"))
        counts = service.counts
        session.print_message(
            f"decided {counts['student']:,} by the student, {counts['teacher']:,} by the teacher, "
            f"{counts['nobody']:,} by nobody; {counts['teacher_failed']:,} requests to the teacher failed"
        )
        for status in service.read_drift().values():
            for warning in status.warnings:
                session.print_message(f"warning: {warning}")


def _choose_decision_teacher(options: ServingOptions) -> TeacherConfig | None:
    """The teacher for what the guarantee does not cover; None without an option, since a student's file starts nothing.

    Raises:
        UsageError: for options of generative students, or a key that is not set.
    """
    given = {"--threshold": options.threshold, "--share": options.share, "--signal": options.signal}
    if wrong := next((name for name, value in given.items() if value is not None), None):
        raise UsageError(f"{wrong}: a decision student has its certified threshold; leave the option out")
    if options.draft:
        raise UsageError("--draft: a decision student writes no tokens; leave the option out")
    model = options.teacher or (options.recipe.model if options.recipe else None)
    if model is None or model == NO_TEACHER:
        return None
    return build_option_teacher(model, options)


def serve_decision_student(
    folder: Path, options: ServingOptions, audit: float, host: str, port: int, names: Sequence[str], *, as_json: bool
) -> None:
    """Serve until the session's stop signal.

    Raises:
        UsageError: if the student or an option cannot be used.
    """
    teacher = _choose_decision_teacher(options)
    with open_decision_student(folder) as student:
        _serve_student(student, folder, teacher, audit, host, port, names, as_json=as_json)


def _serve_student(
    student: DecisionStudent, folder: Path, teacher: TeacherConfig | None, audit: float, host: str, port: int,
    names: Sequence[str], *, as_json: bool,
) -> None:  # fmt: skip
    try:
        student.decide(["."])  # loads the encoder
    except ValueError as fault:
        raise UsageError(
            f"{folder}: its heads do not fit its encoder {student.encoder} ({fault}); make it again with `stillhouse decisions`"
        ) from None
    rest = f"{teacher.model} decides the rest" if teacher else "no teacher: uncertain decisions are marked"
    questions = ", ".join(question.name for question in student.questions)
    SESSION.print_message(f"serve: a decision student ({student.encoder}) for {questions}; {rest}")

    def print_address(url: str) -> None:
        facts = {"state": "serving", "url": url, "student": str(folder), "teacher": teacher and teacher.model}
        text = json.dumps(facts, ensure_ascii=False) if as_json else f"serving {folder} at {url}"
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    with SESSION.handle_interrupts():
        try:
            asyncio.run(_run_decision_server(student, teacher, audit, host, port, names, SESSION, print_address))
        except KeyboardInterrupt:
            raise UserInterrupt from None
