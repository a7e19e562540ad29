"""Scripts of fake teachers, one per module: `fake/NAME` replies with the `SCRIPT` of `NAME`."""

import pkgutil
from functools import cache
from importlib import import_module
from typing import cast

from core.config.teachers import TeacherFaults
from core.plugins import find_part, list_offered_names, load_part
from teachers.fake.script_parts import TeacherScript

BUILT_IN_SCRIPTS = sorted(module.name for module in pkgutil.iter_modules(__path__))


def list_script_names() -> list[str]:
    return sorted([*BUILT_IN_SCRIPTS, *list_offered_names("script")])


def load_script(name: str, faults: TeacherFaults) -> TeacherScript:
    """The `SCRIPT` of a module, or the part of a plugin: a script, or a function that builds it from the faults of the recipe.

    Raises KeyError for an unknown name.
    """
    if name in BUILT_IN_SCRIPTS:
        return cast(TeacherScript, import_module(f"{__name__}.{name}").SCRIPT)
    if find_part("script", name) is None:
        raise KeyError(name)
    script = load_part("script", name)
    return cast(TeacherScript, script(faults) if callable(script) else script)


@cache
def known_contracts() -> frozenset[str]:
    """The reply types that some script can write."""
    return frozenset(contract for name in list_script_names() for contract in load_script(name, TeacherFaults()))
