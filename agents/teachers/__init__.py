"""Teachers: one client for every model, and where each provider's endpoint comes from. Knows no role and no recipe family."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents.teachers.base import Teacher
from core.errors import Problem
from core.recipe import Recipe, TeacherConfig

PROVIDERS = ("fake", "local", "openai")


@asynccontextmanager
async def open_teacher(config: TeacherConfig) -> AsyncIterator[Teacher]:
    """The teacher that `config` names, ready to answer; closed, and its server stopped, on the way out.

    Raises:
        ProviderError: if it cannot be had.
    """
    provider, _, model = config.model.partition("/")
    if provider == "fake":
        from agents.teachers.fake import FakeTeacher

        yield FakeTeacher(config, model)
    elif provider == "local":
        from agents.teachers.local import local_teacher

        async with local_teacher(config, model) as teacher:
            yield teacher
    else:
        from agents.teachers.endpoint import endpoint_teacher

        async with endpoint_teacher(config, model) as teacher:
            yield teacher


def teacher_problems(recipe: Recipe) -> list[Problem]:
    """What is wrong with the recipe's teachers that can be told without asking them."""
    problems = []
    for name, config in recipe.teachers.items():
        provider, _, model = config.model.partition("/")
        where = f"teachers.{name}.model"
        if provider not in PROVIDERS:
            known = ", ".join(f"`{known}/…`" for known in PROVIDERS)
            problems.append(Problem(where, f"unknown provider {provider!r} in {config.model!r}; known are {known}"))
        elif provider == "local":
            from agents.teachers.local import local_problem

            if problem := local_problem(model):
                problems.append(Problem(where, problem))
        elif provider == "fake":
            from agents.teachers.fake import SCRIPTS

            if model not in SCRIPTS:
                problems.append(Problem(where, f"unknown script {model!r}; known are {', '.join(SCRIPTS)}"))
    return problems
