"""Teachers: one client for every model, and where each provider's endpoint comes from. Knows no role and no recipe family."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agents.teachers.base import Teacher
from core.errors import Problem, UsageError
from core.recipe import Recipe, TeacherConfig
from core.store import file_hash

PROVIDERS = ("fake", "local", "openai", "vllm")

logger = logging.getLogger("stillhouse")


@asynccontextmanager
async def open_teacher(config: TeacherConfig) -> AsyncIterator[Teacher]:
    """The teacher that `config` names, ready to answer; closed, and its server stopped, at the end.

    Raises:
        ProviderError: if it cannot be had.
    """
    provider, _, model = config.model.partition("/")
    if provider == "fake":
        from agents.teachers.fake import FakeTeacher

        yield FakeTeacher(config, model)
        return
    from agents.teachers.endpoint import endpoint_teacher

    async with located(config) as there, endpoint_teacher(there, model, _weights(provider, model)) as teacher:
        yield teacher


@asynccontextmanager
async def located(config: TeacherConfig) -> AsyncIterator[TeacherConfig]:
    """`config` with the URL of its endpoint, whose server is started where it is one of our own; that needs no key.

    Raises:
        UsageError: if it answers by a script.
        ProviderError: if its server cannot be started.
    """
    provider, _, model = config.model.partition("/")
    if provider == "fake":
        raise UsageError(f"{config.model}: is a script in this process and has no endpoint; name another model")
    if provider == "local":
        from agents.teachers.local import local_server

        async with local_server(config, model) as url:
            yield _at(config, url)
    elif provider == "vllm":
        from agents.teachers.vllm import vllm_server

        async with vllm_server(model, config.engine, logger.info) as url:
            yield _at(config, url)
    else:
        yield config


def _at(config: TeacherConfig, url: str) -> TeacherConfig:
    return config.model_copy(update={"base_url": url, "api_key_env": ""})


def _weights(provider: str, model: str) -> str:
    """What else decides the answers of a model named by its file: another one may lie there tomorrow."""
    return file_hash(Path(model)) if provider == "local" and model.endswith(".gguf") else ""


def teacher_problems(recipe: Recipe) -> list[Problem]:
    """What is wrong with the recipe's teachers that can be told without asking them."""
    problems = []
    for name, config in recipe.teachers.items():
        if problem := _problem(*config.model.partition("/")[::2], config.model):
            problems.append(Problem(f"teachers.{name}.model", problem))
    return problems


def _problem(provider: str, model: str, whole: str) -> str | None:
    if provider not in PROVIDERS:
        known = ", ".join(f"`{known}/…`" for known in PROVIDERS)
        return f"unknown provider {provider!r} in {whole!r}; known are {known}"
    if provider == "local":
        from agents.teachers.local import local_problem

        return local_problem(model)
    if provider == "vllm":
        from agents.teachers.vllm import vllm_problem

        return vllm_problem()
    if provider == "fake":
        from agents.teachers.scripts import NAMES

        return None if model in NAMES else f"unknown script {model!r}; known are {', '.join(NAMES)}"
    return None
