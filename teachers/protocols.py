"""What plugins offer of teachers: protocols, a base class for their teachers, the guard around those of installed packages, and
batches.

Knows no protocol and no provider. A recipe names a protocol as `NAME/model`, and batches by `batch`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from core.config.teachers import TeacherConfig
from core.errors import ProviderError, StillhouseError
from core.extensions import Extension
from core.plugins import load_part
from core.secrets import redact_text
from core.stop_signal import RunStopped
from teachers.base import CallCharge, CallFailed, ChargeAccount, Teacher, TeacherQuestion, TeacherReply
from teachers.endpoint_calls import FailedTry, FailureCause, SingleEndpointTeacher
from teachers.server_guard import StartedServer


@dataclass(frozen=True)
class TeacherProtocol:
    """A teacher protocol by name."""

    name: str
    """The part of `teachers.NAME.model` before the slash: lowercase letters, digits, `_` and `-`."""
    open: Callable[[TeacherConfig], AbstractAsyncContextManager[Teacher]] | None = None
    """Connects to the teacher of this table for the duration of a block. Raises ProviderError if it is not available. The name
    of the variable with the key is `config.api_key_env`."""
    find_problem: Callable[[TeacherConfig], str | None] = lambda _config: None
    """What this machine lacks for the teacher, in a sentence; called before a run, without a network."""
    serve: Callable[[TeacherConfig, Callable[[str], None]], AbstractAsyncContextManager[StartedServer]] | None = None
    """In place of `open`: starts an OpenAI-compatible server for the duration of a block, and calls the second argument with
    sentences about its progress. Raises as `open`."""


class LimitedTeacher(SingleEndpointTeacher):
    """A teacher that only has to answer: slots, rates, retries, outages, the time limit and the budget are those of its table.

    A ConnectionError or TimeoutError of `answer` is retried, and while every call meets a ConnectionError it counts as an outage.
    For a ConnectionRefusedError nothing is charged. CallFailed fails the sample, ProviderError ends the run.
    """

    manner = ""
    """Everything but the question and the model's name that affects replies, such as the endpoint."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__(config, config.endpoint, config.model.partition("/")[2])

    @abstractmethod
    async def answer(self, question: TeacherQuestion) -> TeacherReply:
        """The reply to one question. Without `usage.prompt_tokens`, the most that the call could use is charged."""

    async def _send_once(self, question: TeacherQuestion, charge: CallCharge) -> TeacherReply:
        try:
            async with asyncio.timeout(self.config.timeout_seconds):
                return await self.answer(question)
        except (ConnectionError, TimeoutError) as error:
            what = str(error) or f"no answer in {self.config.timeout_seconds:g} s"
            kind = "timeout" if isinstance(error, TimeoutError) else ""
            fault = redact_text(f"{type(error).__name__}: {what}")
            raise FailedTry(fault, _find_cause(error), kind=kind) from error


def _find_cause(error: Exception) -> FailureCause:
    if isinstance(error, ConnectionRefusedError):
        return FailureCause.network
    return FailureCause.server if isinstance(error, ConnectionError) else FailureCause.passing


class _GuardedTeacher:
    """A teacher of an installed protocol: replies are stored under the version of its package, and its bugs fail samples."""

    def __init__(self, teacher: Teacher, extension: Extension[TeacherProtocol], config: TeacherConfig) -> None:
        self.model, self.slots = config.model, teacher.slots
        decides = {"base_url", "extra"} | ({"drop"} if config.drop else set())
        keys = config.model_dump_json(include=decides)
        self.manner = f"{teacher.manner} {extension.identity} {keys}"
        self._teacher, self._title = teacher, extension.title

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        try:
            reply = await self._teacher.reply(question, rank, account)
        except (CallFailed, StillhouseError, RunStopped):
            raise
        except Exception as error:
            raise CallFailed(redact_text(f"{self._title} broke: {type(error).__name__}: {error}")) from error
        if not isinstance(reply, TeacherReply):
            raise CallFailed(f"{self._title} broke: it returned {type(reply).__name__} and no TeacherReply")
        return reply

    def release(self) -> None:
        self._teacher.release()


@asynccontextmanager
async def open_installed_teacher(
    extension: Extension[TeacherProtocol], config: TeacherConfig
) -> AsyncIterator[Teacher]:
    """The teacher of an installed protocol, ready to reply.

    Raises:
        ProviderError: if it is not available.
    """
    async with AsyncExitStack() as stack:
        try:
            assert extension.value.open, "others are served"
            teacher = await stack.enter_async_context(extension.value.open(config))
        except (StillhouseError, RunStopped):
            raise
        except Exception as error:
            fault = redact_text(f"{extension.title} cannot be opened: {type(error).__name__}: {error}")
            raise ProviderError(f"{fault}; repair its package, or name another model") from error
        yield _GuardedTeacher(teacher, extension, config)


class CollectingTeacher(ABC):
    """A teacher whose questions are answered when they were sent together. It is asked to send them when nothing else can
    progress.
    """

    model: str
    manner: str
    slots: int
    collects: bool
    """Whether new questions are collected, or only results of earlier batches are used."""

    def __init__(self) -> None:
        self.delivering = 0
        """Batches whose results are being handed out."""
        self.on_collected: Callable[[], None] = lambda: None
        """Called when questions were collected, and when results were handed out."""

    @property
    @abstractmethod
    def collected(self) -> int:
        """Questions that wait to be sent."""

    @abstractmethod
    def send_collected(self) -> None:
        """Send what was collected as a batch."""

    @abstractmethod
    def describe(self) -> str:
        """The open batches in a line; "" if there is none."""

    @abstractmethod
    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        """As `Teacher.reply`."""

    @abstractmethod
    def release(self) -> None:
        """As `Teacher.release`."""


@dataclass(frozen=True)
class TeacherBatches:
    """The batch API of a provider, as a part of a plugin."""

    name: str
    """The provider: the part of `teachers.NAME.model` before the slash."""
    open: Callable[[TeacherConfig, Teacher, Path], AbstractAsyncContextManager[CollectingTeacher]]
    """The teacher with its batches in a folder, for the duration of a block; the other teacher replies directly. Raises
    StillhouseError if the folder cannot be read, or the provider cannot be asked."""
    check: Callable[[TeacherConfig], Awaitable[None]]
    """Raises ProviderError or CallFailed if the endpoint does not list batches."""


def load_batches(config: TeacherConfig) -> TeacherBatches:
    """Raises UnusablePlugin if no plugin has the batch API of the teacher's provider."""
    batches: TeacherBatches = load_part("batches", config.model.partition("/")[0])
    return batches
