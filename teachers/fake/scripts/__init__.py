"""Scripts of fake teachers, one per module: `fake/NAME` replies with the `SCRIPT` of `NAME`."""

import pkgutil
from functools import cache
from importlib import import_module
from typing import cast

from pydantic import Field

from core.config.base import RecipeTable
from core.plugins import find_part, list_offered_names, load_part
from teachers.fake.script_parts import TeacherScript

BUILT_IN_SCRIPTS = sorted(module.name for module in pkgutil.iter_modules(__path__))


class FakeOptions(RecipeTable):
    """The keys of `extra` of a fake teacher: faults, as shares of its replies. The script of a plugin may have more: a subclass
    with a `build_script`.
    """

    malformed: float = Field(0.0, ge=0, le=1)
    """Replies cut in the middle, which fail their schema."""
    refusal: float = Field(0.0, ge=0, le=1)
    repetition: float = Field(0.0, ge=0, le=1)
    unavailable: float = Field(0.0, ge=0, le=1)
    """Calls that fail on every try."""
    seconds: float = Field(0.0, ge=0)
    """Duration of each reply."""
    thinking: float = Field(0.0, ge=0, le=1)
    """Replies with thinking before them, which the teacher returns separately. No fault, unless it leaks."""
    leak: float = Field(0.0, ge=0, le=1)
    """Replies with thinking inside the answer."""

    def build_script(self) -> TeacherScript:
        raise NotImplementedError


def list_script_names() -> list[str]:
    return sorted([*BUILT_IN_SCRIPTS, *list_offered_names("script")])


def find_options(name: str) -> type[FakeOptions]:
    """The type of `extra` of `fake/NAME`."""
    part = load_part("script", name) if name not in BUILT_IN_SCRIPTS else None
    return part if isinstance(part, type) else FakeOptions


def load_script(name: str, options: FakeOptions | None = None) -> TeacherScript:
    """The `SCRIPT` of a module, or the part of a plugin: a script, or options that build it.

    Raises KeyError for an unknown name.
    """
    if name in BUILT_IN_SCRIPTS:
        return cast(TeacherScript, import_module(f"{__name__}.{name}").SCRIPT)
    if find_part("script", name) is None:
        raise KeyError(name)
    script = load_part("script", name)
    return (options or script()).build_script() if isinstance(script, type) else cast(TeacherScript, script)


@cache
def known_contracts() -> frozenset[str]:
    """The reply types that some script can write."""
    return frozenset(contract for name in list_script_names() for contract in load_script(name))
