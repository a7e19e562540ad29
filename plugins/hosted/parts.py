"""The parts of this plugin: its protocols and batch APIs. Client libraries are imported when a teacher is opened."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from time import time

from core.config.teachers import TeacherConfig
from core.installation import format_install_command
from plugins.hosted.batches.batch_api import BatchApi
from teachers.base import Teacher
from teachers.protocols import CollectingTeacher, TeacherBatches, TeacherProtocol


def _open_anthropic(config: TeacherConfig) -> AbstractAsyncContextManager[Teacher]:
    from plugins.hosted.anthropic_teacher import open_anthropic_teacher

    return open_anthropic_teacher(config)


def _open_gemini(config: TeacherConfig) -> AbstractAsyncContextManager[Teacher]:
    from plugins.hosted.gemini_teacher import open_gemini_teacher

    return open_gemini_teacher(config)


def _require_library(library: str) -> Callable[[TeacherConfig], str | None]:
    def find_problem(_config: TeacherConfig) -> str | None:
        if _is_installed(library):
            return None
        return f"its client library is not installed: run {format_install_command('hosted')}"

    return find_problem


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it
        return False


@asynccontextmanager
async def _open_openai_api(config: TeacherConfig) -> AsyncIterator[BatchApi]:
    from plugins.hosted.batches.openai_batches import OpenAIBatchApi
    from teachers.endpoint import open_session

    async with open_session(config) as session:
        yield OpenAIBatchApi(config, config.endpoint, config.model.partition("/")[2], session)


def _open_anthropic_api(config: TeacherConfig) -> AbstractAsyncContextManager[BatchApi]:
    from plugins.hosted.batches.anthropic_batches import open_anthropic_batches

    return open_anthropic_batches(config)


def _offer_batches(
    name: str, open_api: Callable[[TeacherConfig], AbstractAsyncContextManager[BatchApi]]
) -> TeacherBatches:
    @asynccontextmanager
    async def open_batches(config: TeacherConfig, direct: Teacher, folder: Path) -> AsyncIterator[CollectingTeacher]:
        from plugins.hosted.batches.batch_teacher import open_batch_teacher

        async with open_api(config) as api, open_batch_teacher(config, api, direct, folder) as teacher:
            yield teacher

    async def check(config: TeacherConfig) -> None:
        async with open_api(config) as api:
            await api.find("", 0, time())

    return TeacherBatches(name, open_batches, check)


ANTHROPIC = TeacherProtocol("anthropic", _open_anthropic, _require_library("anthropic"))
GEMINI = TeacherProtocol("gemini", _open_gemini, _require_library("google.genai"))
OPENAI_BATCHES = _offer_batches("openai", _open_openai_api)
ANTHROPIC_BATCHES = _offer_batches("anthropic", _open_anthropic_api)
