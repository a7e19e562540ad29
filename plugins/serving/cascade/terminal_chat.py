"""`stillhouse chat`: a conversation with a student in the terminal, or a line per turn from a pipe.

llama.cpp answers if it is installed, otherwise torch. Knows no teacher and no routing.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from core.config.agents import reasoning_tokens
from core.config.teachers import TeacherConfig
from core.errors import ProviderError, UsageError
from core.runs.records import RunState
from core.runs.run_dir import RunDir
from core.shared_options import DEFAULT_GGUF_TYPE, name_student_file
from core.thinking import THINK_CLOSING, THINK_OPENING, split_thinking
from flows.data.run_storage import open_run_storage
from flows.data.student_files import (
    export_student,
    find_student_run,
    is_weights_file,
)
from flows.terminal.console import SESSION
from flows.terminal.suggested_commands import format_command, format_resume_hint
from flows.terminal.text_format import replace_unsafe_characters
from plugins.serving.relay import RelayError, open_relay
from teachers.local_weights import find_llama_problem

PROMPT = "> "
LEAST_SLOT_TOKENS = 4096
"""Tokens of the conversation and the reply; more if `--max-tokens` is large."""
TOP_P = 0.95

ChatTurn = Mapping[str, str]
"""A message with `role` and `content`."""
WriteText = Callable[[str], None]


class ChatSettings(NamedTuple):
    system: str | None
    """The system prompt; None for the chat template's own."""
    temperature: float
    max_tokens: int
    """Of one reply, its thinking included."""
    thinking: bool = False
    """Whether the thinking is written before the answer; it is never part of the conversation."""


class ChatStudent(NamedTuple):
    """Where the student is."""

    folder: Path | None
    """None for a GGUF file."""
    weights: Path | None
    """The GGUF file; None if there is none yet."""


class ChatFailure(Exception):
    """No reply to one turn; the text is the reason."""


def find_chat_student(name: Path, runs_dir: str) -> ChatStudent:
    """The GGUF file or student's folder `name`, or the student of the run with this path or name.

    Raises:
        UsageError: if there is no student.
    """
    if is_weights_file(name):
        return ChatStudent(None, name)
    folder = name
    if not (name / "config.json").is_file():
        run = open_run_storage(runs_dir).find_run(str(name))
        folder = run.student
        if not (folder / "config.json").is_file():
            manifest = run.read_manifest()
            if manifest.state is not RunState.done and run.read_recipe().student:
                raise UsageError(f"{name}: this run has no student yet; {format_resume_hint(run, manifest)}")
            train = format_command("distill", str(run.path), "--out", "student")
            raise UsageError(
                f"{name}: this run has no student; train one with `{train}`, then: stillhouse chat student"
            )
    weights = folder / name_student_file()
    return ChatStudent(folder, weights if weights.is_file() else None)


def choose_chat_settings(
    student: ChatStudent,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    *,
    thinking: bool = False,
) -> ChatSettings:
    """The options, completed by the sampling of the recipe that the student was trained with, if it is known."""
    folder = student.folder or (student.weights and student.weights.parent)
    run = find_student_run(folder) if folder else None
    sampling = _read_sampling(run)
    return ChatSettings(
        system,
        sampling[0] if temperature is None else temperature,
        sampling[1] if max_tokens is None else max_tokens,
        thinking,
    )


def _read_sampling(run: RunDir | None) -> tuple[float, int]:
    """Temperature and longest reply."""
    if run is None:
        return 0.7, 256
    generator = run.read_recipe().agents.generator
    return generator.temperature, generator.max_tokens + reasoning_tokens(generator.reasoning)


class ChatConversation:
    """The turns so far, and the model that continues them."""

    def __init__(self, settings: ChatSettings, ask: Callable[[Sequence[ChatTurn], WriteText], str]) -> None:
        self.turns: list[ChatTurn] = [{"role": "system", "content": settings.system}] if settings.system else []
        self._ask = ask

    def send(self, text: str, write: WriteText) -> str:
        """The reply to the user's text, whose pieces are written as they arrive. A failed turn is forgotten."""
        turns = [*self.turns, {"role": "user", "content": text}]
        reply = self._ask(turns, write)
        self.turns = [*turns, {"role": "assistant", "content": reply}]
        return reply


@contextmanager
def open_conversation(student: ChatStudent, settings: ChatSettings) -> Iterator[ChatConversation]:
    """A conversation with the student, whose model is loaded during the block.

    Raises:
        UsageError: if the student can neither be loaded by llama.cpp nor by torch.
        ProviderError: if llama.cpp cannot load the weights.
        UserInterrupt: if the user stops the loading.
    """
    if (weights := _find_llama_weights(student)) is None:
        assert student.folder is not None, "a GGUF file needs llama.cpp"
        from plugins.serving.torch_replies import StudentTextGenerator

        generator = StudentTextGenerator(student.folder)

        def generate(turns: Sequence[ChatTurn], write: WriteText) -> str:
            reply = str(generator.generate_reply(turns, settings.temperature, TOP_P, settings.max_tokens))
            parts = split_thinking(reply)
            written = ChatReplyText(write, settings)
            written.add(parts.reasoning, parts.answer)
            return written.finish()

        yield ChatConversation(settings, generate)
        return
    slot_tokens = max(LEAST_SLOT_TOKENS, 2 * settings.max_tokens)
    model = TeacherConfig(model=f"local/{weights}", max_concurrent=1, slot_tokens=slot_tokens)
    with closing(asyncio.Runner()) as runner:  # its event loop is made by the first `run`
        stack = AsyncExitStack()
        try:
            # Ctrl-C as a KeyboardInterrupt would leave a half-made event loop, or one with a half-started process.
            with SESSION.handle_interrupts():
                relay = runner.run(SESSION.run_unless_stopped(stack.enter_async_context(open_relay(model))))
            SESSION.check_stopped()  # the signal may have come as the loading ended

            def stream(turns: Sequence[ChatTurn], write: WriteText) -> str:
                body = {
                    "messages": list(turns), "temperature": settings.temperature, "top_p": TOP_P,
                    "max_tokens": settings.max_tokens,
                }  # fmt: skip
                return runner.run(_stream_reply(relay.stream(body), ChatReplyText(write, settings)))

            yield ChatConversation(settings, stream)
        finally:
            runner.run(stack.aclose())


def _find_llama_weights(student: ChatStudent) -> Path | None:
    """The GGUF file, exported if there is none; None if torch must answer."""
    if problem := find_llama_problem():
        if student.folder is None or (student.weights and find_spec("torch") is None):
            raise UsageError(problem)
        return None
    if student.weights or student.folder is None:
        return student.weights
    try:
        return export_student(student.folder, DEFAULT_GGUF_TYPE).path
    except UsageError:  # not a Llama
        return None


class ChatReplyText:
    """A reply as its pieces arrive: the answer is written, the thinking before it only if the settings ask for it."""

    def __init__(self, write: WriteText, settings: ChatSettings) -> None:
        self._write = write
        self._settings = settings
        self._thinking = self._answer = ""

    def add(self, thinking: str, answer: str) -> None:
        thinking = thinking if self._thinking else thinking.lstrip()
        answer = answer if self._answer else answer.lstrip()
        if self._settings.thinking:
            if thinking:
                self._write(thinking if self._thinking else f"{THINK_OPENING}\n{thinking}")
            if answer and not self._answer and self._thinking + thinking:
                end = "" if (self._thinking + thinking).endswith("\n") else "\n"
                self._write(f"{end}{THINK_CLOSING}\n\n")
        if answer:
            self._write(answer)
        self._thinking, self._answer = self._thinking + thinking, self._answer + answer

    def finish(self) -> str:
        """The answer. Raises ChatFailure if the reply ended in its thinking."""
        if self._thinking and not self._answer:
            raise ChatFailure(
                f"the student was still thinking after {self._settings.max_tokens} tokens; raise --max-tokens, or read its "
                "thinking with --thinking"
            )
        return self._answer.strip()


async def _stream_reply(
    opening: AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]], written: ChatReplyText
) -> str:
    try:
        async with opening as chunks:
            async for chunk in chunks:
                for choice in chunk["choices"]:
                    delta = choice.get("delta") or {}
                    written.add(delta.get("reasoning_content") or "", delta.get("content") or "")
    except RelayError as error:
        raise ChatFailure(_explain_failure(error)) from None
    return written.finish()


def _explain_failure(error: RelayError) -> str:
    kind = error.body.get("error", {}).get("type") if isinstance(error.body, dict) else None
    if kind == "exceed_context_size_error":
        return "the conversation is longer than the student can read; start a new one"
    return str(error)


def run_chat(conversation: ChatConversation, *, quiet: bool = False) -> list[str]:
    """Read lines from stdin until its end, and write the replies; the reasons of lines without a reply. `quiet` writes nothing to
    stdout, for a caller that prints the turns.
    """
    failures = []
    for line in _read_chat_lines(prompt_on_stdout=not quiet and sys.stdout.isatty()):
        if not line.strip():
            continue
        try:
            conversation.send(line.strip(), _write_nothing if quiet else _write_piece)
        except ChatFailure as failure:
            failures.append(str(failure))
            sys.stderr.write(f"no reply: {failure}\n")
        else:
            if not quiet:
                _write_piece("\n")
    return failures


def check_chat_failures(failures: Sequence[str]) -> None:
    """Raises ProviderError if a line of a pipe got no reply; at a terminal the user has seen it."""
    if failures and not sys.stdin.isatty():
        raise ProviderError(f"{len(failures)} of the lines got no reply; the first: {failures[0]}")


def _read_chat_lines(*, prompt_on_stdout: bool) -> Iterator[str]:
    """Lines from a terminal with a prompt, or from a pipe. Bytes that are not UTF-8 are replaced."""
    if not sys.stdin.isatty():
        for raw in sys.stdin.buffer:
            yield raw.decode("utf-8", "replace")
        return
    import readline  # noqa: F401  # arrow keys and history for input()

    while True:
        if not prompt_on_stdout:
            sys.stderr.write(PROMPT)
            sys.stderr.flush()
        try:
            line = input(PROMPT if prompt_on_stdout else "")
        except EOFError:
            (sys.stdout if prompt_on_stdout else sys.stderr).write("\n")
            return
        yield line.encode("utf-8", "replace").decode("utf-8")


def _write_piece(text: str) -> None:
    sys.stdout.write(replace_unsafe_characters(text))
    sys.stdout.flush()


def _write_nothing(_text: str) -> None:
    pass
