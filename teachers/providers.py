"""Opens the teacher that a recipe names, and starts the server of its provider. Knows no role and no recipe family."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from core.config.loading import validate_table
from core.config.recipe import Recipe
from core.config.teachers import TeacherConfig
from core.errors import RecipeProblem, UsageError
from core.extensions import Extension, ExtensionPoint
from core.plugins import UnusablePlugin, find_part, list_offered_names
from core.secrets import redact_text
from core.storage.recording import read_recording
from core.weights.gguf_files import hash_gguf
from core.weights.packaged_weights import EMBEDDED_TEACHER
from teachers.base import Teacher
from teachers.protocols import TeacherProtocol, load_batches, open_installed_teacher

PROVIDERS = ("fake", "local", "openai")
PROTOCOL_EXTENSIONS: ExtensionPoint[TeacherProtocol] = ExtensionPoint("protocol", TeacherProtocol, lambda: PROVIDERS)

logger = logging.getLogger("stillhouse")


@asynccontextmanager
async def open_teacher(
    config: TeacherConfig, batches: Path | None = None, rejected: Path | None = None
) -> AsyncIterator[Teacher]:
    """The teacher that `config` names, ready to reply; its server is stopped at the end of the block. `batches` is the folder of
    its batches; without one, it replies directly. `rejected` is the file of the request keys that its endpoint rejected.

    Raises:
        ProviderError: if it is not available.
    """
    async with _open_direct_teacher(config, rejected) as teacher:
        # A run that no longer asks for batches still gets the results of those that it sent before.
        if batches is None or not (config.batch or batches.exists()):
            yield teacher
            return
        async with load_batches(config).open(config, teacher, batches) as collecting:
            yield collecting


@asynccontextmanager
async def _open_direct_teacher(config: TeacherConfig, rejected: Path | None) -> AsyncIterator[Teacher]:
    provider, _, model = config.model.partition("/")
    if config.replays:
        from teachers.fake.fake_teacher import ReplayTeacher

        yield ReplayTeacher(config)
        return
    if provider == "fake":
        from teachers.fake.fake_teacher import FakeTeacher

        yield FakeTeacher(config, model)
        return
    if (extension := PROTOCOL_EXTENSIONS.find(provider)) and extension.value.open:
        opened = extension.value.open(config) if extension.own else open_installed_teacher(extension, config)
        async with opened as teacher:
            yield teacher
        return
    from teachers.endpoint import open_endpoint_teacher

    # The origin of the replies beyond the model's name: its endpoint, or the hash of its weights, since a file can be replaced.
    # The port of a server that this process starts is random and not included.
    if provider == "local":
        from teachers.local_llama import read_projector_limits, start_local_server
        from teachers.local_weights import fetch_local_weights, find_projector

        weights = await fetch_local_weights(config, logger.info)
        projector = find_projector(weights)
        digest = "" if model == EMBEDDED_TEACHER else await asyncio.to_thread(hash_gguf, weights)
        seen_by = await asyncio.to_thread(hash_gguf, projector) if projector else ""
        source = " ".join(filter(None, [digest, seen_by]))
        async with (
            start_local_server(config, weights, logger.info) as server,
            open_endpoint_teacher(_with_url(config, server.url), model, source, server.key) as teacher,
        ):
            if projector is None:
                yield teacher
                return
            from teachers.local_llama import SeeingTeacher

            yield SeeingTeacher(teacher, read_projector_limits(config.model, projector))
        return
    async with (
        locate_endpoint(config) as (there, key, _),
        open_endpoint_teacher(there, model, config.endpoint, key, rejected) as teacher,
    ):
        yield teacher


@asynccontextmanager
async def locate_endpoint(
    config: TeacherConfig,
) -> AsyncIterator[tuple[TeacherConfig, str | None, Callable[[], str | None]]]:
    """`config` with the URL of its endpoint, the key of a server that is started here, and a function that returns why such a
    server does not reply now. The key is in no configuration and in no environment variable of this process.

    Raises:
        UsageError: if the teacher is a script, or of an installed protocol.
        ProviderError: if its server cannot be started.
    """
    provider = config.model.partition("/")[0]
    if provider == "fake":
        raise UsageError(f"{config.model}: is a script in this process without an endpoint; name another model")
    if provider == "local":
        from teachers.local_llama import start_local_server
        from teachers.local_weights import fetch_local_weights

        weights = await fetch_local_weights(config, logger.info)
        async with start_local_server(config, weights, logger.info) as server:
            yield _with_url(config, server.url), server.key, server.fault
    elif provider == "openai":
        yield config, None, lambda: None
    elif serve := PROTOCOL_EXTENSIONS.require(provider).value.serve:
        async with serve(config, logger.info) as server:
            yield _with_url(config, server.url), server.key, server.fault
    else:
        raise UsageError(f"{config.model}: has a protocol of its own and no OpenAI endpoint; name another model")


def _with_url(config: TeacherConfig, url: str) -> TeacherConfig:
    return config.model_copy(update={"base_url": url, "api_key_env": ""})


def find_teacher_problems(recipe: Recipe) -> list[RecipeProblem]:
    """Problems of the recipe's teachers that can be found without calling them."""
    problems = []
    for name, config in recipe.teachers.items():
        provider = config.model.partition("/")[0]
        if problem := _find_protocol_problem(provider, config) or _find_model_problem(config):
            problems.append(RecipeProblem(f"teachers.{name}.model", problem))
        elif provider == "fake" and not config.replays:
            from teachers.fake.scripts import find_options

            options = find_options(config.model.partition("/")[2])
            problems += validate_table(options, config.extra, f"teachers.{name}.extra")[1]
        elif problem := _find_draft_problem(config):
            problems.append(RecipeProblem(f"teachers.{name}.draft", problem))
        offered = list_offered_names("batches")
        if config.batch and provider not in offered:
            known = f", only {' and '.join(f'{known}/…' for known in offered)} have" if offered else ""
            what = f"{provider}/… has no batch API here{known}; remove the key"
            problems.append(RecipeProblem(f"teachers.{name}.batch", what))
    return problems


def uses_installed_protocol(model: str) -> bool:
    """Whether a teacher of this name is one of an installed package, which decides where prompts go."""
    provider = model.partition("/")[0]
    found = find_part("protocol", provider)
    return provider not in PROVIDERS and (found is None or bool(found[0].origin))


def list_protocol_extensions(recipe: Recipe) -> list[Extension[TeacherProtocol]]:
    """The installed and registered protocols of the recipe's teachers."""
    names = dict.fromkeys(config.model.partition("/")[0] for config in recipe.teachers.values())
    return [PROTOCOL_EXTENSIONS.require(name) for name in names if name not in PROVIDERS]


def _find_protocol_problem(provider: str, config: TeacherConfig) -> str | None:
    try:
        extension = PROTOCOL_EXTENSIONS.find(provider)
        if provider not in PROVIDERS and extension is None:
            return PROTOCOL_EXTENSIONS.describe_unknown(provider)
    except UnusablePlugin as error:
        return str(error)
    if extension is None:
        return None
    try:
        return extension.value.find_problem(config)
    except Exception as error:
        return redact_text(f"{extension.title} cannot be checked: {type(error).__name__}: {error}; repair its package")


def _find_model_problem(config: TeacherConfig) -> str | None:
    """Why the model of a built-in provider cannot be used."""
    provider, _, model = config.model.partition("/")
    if provider == "local":
        from teachers.local_weights import local_model_problem

        return local_model_problem(config)
    if config.replays:
        return _find_recording_problem(config)
    if provider == "fake":
        from teachers.fake.scripts import list_script_names

        known = ", ".join(list_script_names())
        return None if model in list_script_names() else f"unknown script {model!r}; known are {known}, and replay:FILE"
    return None


def _find_draft_problem(config: TeacherConfig) -> str | None:
    if config.draft is None:
        return None
    from teachers.drafts import find_draft_problem

    return find_draft_problem(config)


def _find_recording_problem(config: TeacherConfig) -> str | None:
    if config.extra:
        return "a recording has no faults to draw; remove `extra`"
    try:
        read_recording(config.recording_file)
    except UsageError as error:
        return str(error)
    return None
