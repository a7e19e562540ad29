"""Opens the teacher that a recipe names, and starts the server of its provider. Knows no role and no recipe family."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from core.config.recipe import Recipe
from core.config.teachers import TeacherConfig
from core.errors import RecipeProblem, UsageError
from core.extensions import Extension, ExtensionPoint, UnusableExtension
from core.installation import format_install_command
from core.secrets import redact_text
from core.storage.atomic_files import hash_file
from teachers.base import Teacher
from teachers.protocols import TeacherProtocol, open_installed_teacher

PROVIDERS = ("anthropic", "fake", "gemini", "local", "openai", "vllm")
HOSTED_LIBRARIES = {"anthropic": "anthropic", "gemini": "google.genai"}
"""The client libraries of providers with a protocol of their own, by the extras that install them."""
PROTOCOL_EXTENSIONS: ExtensionPoint[TeacherProtocol] = ExtensionPoint("protocol", TeacherProtocol, lambda: PROVIDERS)

logger = logging.getLogger("stillhouse")


@asynccontextmanager
async def open_teacher(config: TeacherConfig) -> AsyncIterator[Teacher]:
    """The teacher that `config` names, ready to reply; its server is stopped at the end of the block.

    Raises:
        ProviderError: if it is not available.
    """
    provider, _, model = config.model.partition("/")
    if provider == "fake":
        from teachers.fake.fake_teacher import FakeTeacher

        yield FakeTeacher(config, model)
        return
    if extension := PROTOCOL_EXTENSIONS.find(provider):
        async with open_installed_teacher(extension, config) as teacher:
            yield teacher
        return
    if provider in HOSTED_LIBRARIES:
        async with _open_hosted_teacher(provider, config) as hosted:
            yield hosted
        return
    from teachers.endpoint import open_endpoint_teacher

    async with locate_endpoint(config) as (there, key, _):
        # The origin of the replies beyond the model's name: its endpoint, or the hash of its weights, since a file can be
        # replaced. The port of a server that this process starts is random and not included.
        weights = provider == "local" and model.endswith(".gguf")
        source = hash_file(Path(model)) if weights else config.endpoint
        async with open_endpoint_teacher(there, model, source, key) as teacher:
            yield teacher


def _open_hosted_teacher(provider: str, config: TeacherConfig) -> AbstractAsyncContextManager[Teacher]:
    if provider == "anthropic":
        from teachers.hosted.anthropic_teacher import open_anthropic_teacher

        return open_anthropic_teacher(config)
    from teachers.hosted.gemini_teacher import open_gemini_teacher

    return open_gemini_teacher(config)


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
    provider, _, model = config.model.partition("/")
    if provider == "fake":
        raise UsageError(f"{config.model}: is a script in this process without an endpoint; name another model")
    if provider == "local":
        from teachers.local_llama import start_local_server

        async with start_local_server(config, model, logger.info) as server:
            yield _with_url(config, server.url), server.key, server.fault
    elif provider in HOSTED_LIBRARIES or provider not in PROVIDERS:
        raise UsageError(f"{config.model}: has a protocol of its own and no OpenAI endpoint; name another model")
    elif provider == "vllm":
        from teachers.vllm import start_vllm_server

        async with start_vllm_server(model, config.engine, logger.info) as server:
            yield _with_url(config, server.url), server.key, server.fault
    else:
        yield config, None, lambda: None


def _with_url(config: TeacherConfig, url: str) -> TeacherConfig:
    return config.model_copy(update={"base_url": url, "api_key_env": ""})


def find_teacher_problems(recipe: Recipe) -> list[RecipeProblem]:
    """Problems of the recipe's teachers that can be found without calling them."""
    problems = []
    for name, config in recipe.teachers.items():
        provider, _, model = config.model.partition("/")
        if problem := _find_protocol_problem(provider, config) or _find_model_problem(provider, model):
            problems.append(RecipeProblem(f"teachers.{name}.model", problem))
    return problems


def list_protocol_extensions(recipe: Recipe) -> list[Extension[TeacherProtocol]]:
    """The installed and registered protocols of the recipe's teachers."""
    names = dict.fromkeys(config.model.partition("/")[0] for config in recipe.teachers.values())
    return [PROTOCOL_EXTENSIONS.require(name) for name in names if name not in PROVIDERS]


def _find_protocol_problem(provider: str, config: TeacherConfig) -> str | None:
    try:
        extension = PROTOCOL_EXTENSIONS.find(provider)
        if provider not in PROVIDERS and extension is None:
            return PROTOCOL_EXTENSIONS.describe_unknown(provider)
    except UnusableExtension as error:
        return str(error)
    if extension is None:
        return None
    try:
        return extension.value.find_problem(config)
    except Exception as error:
        return redact_text(f"{extension.title} cannot be checked: {type(error).__name__}: {error}; repair its package")


def _find_model_problem(provider: str, model: str) -> str | None:
    """Why the model of a built-in provider cannot be used."""
    if provider in HOSTED_LIBRARIES and not _is_installed(HOSTED_LIBRARIES[provider]):
        return f"its client library is not installed: run {format_install_command(provider)}"
    if provider == "local":
        from teachers.local_llama import local_model_problem

        return local_model_problem(model)
    if provider == "vllm":
        from teachers.vllm import vllm_problem

        return vllm_problem()
    if provider == "fake":
        from teachers.fake.scripts import SCRIPT_NAMES

        return None if model in SCRIPT_NAMES else f"unknown script {model!r}; known are {', '.join(SCRIPT_NAMES)}"
    return None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it
        return False
