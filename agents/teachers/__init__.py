"""Teachers: one client for every model, and where each provider's endpoint comes from. Knows no role and no recipe family."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from agents.teachers.base import Teacher
from core.errors import Problem
from core.recipe import Recipe, TeacherConfig

PROVIDERS = ("fake", "local", "openai")


_open: dict[str, "_Shared"] = {}


@dataclass
class _Shared:
    """A teacher in use, and how many use it."""

    teacher: Teacher
    stack: AsyncExitStack
    users: int = 0


@asynccontextmanager
async def open_teacher(config: TeacherConfig) -> AsyncIterator[Teacher]:
    """The teacher that `config` names, ready to answer; closed, and its server stopped, when its last user leaves.

    Users with the same configuration in one process share one teacher, and so one gate and one prompt cache.

    Raises:
        ProviderError: if it cannot be had.
    """
    key = config.model_dump_json()
    if key not in _open:
        stack = AsyncExitStack()
        teacher = await stack.enter_async_context(_connected(config))
        if key in _open:  # another user was faster
            await stack.aclose()
        else:
            _open[key] = _Shared(teacher, stack)
    shared = _open[key]
    shared.users += 1
    try:
        yield shared.teacher
    finally:
        shared.users -= 1
        if not shared.users:
            del _open[key]
            await shared.stack.aclose()


@asynccontextmanager
async def _connected(config: TeacherConfig) -> AsyncIterator[Teacher]:
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
