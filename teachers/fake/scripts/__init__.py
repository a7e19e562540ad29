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
    """The module's `SCRIPT`, or the result of its `script(faults)`. Raises KeyError for an unknown name."""
    if name not in BUILT_IN_SCRIPTS:
        if find_part("script", name) is None:
            raise KeyError(name)
        return cast(TeacherScript, load_part("script", name))
    module = import_module(f"{__name__}.{name}")
    return cast(TeacherScript, module.script(faults) if hasattr(module, "script") else module.SCRIPT)


@cache
def known_contracts() -> frozenset[str]:
    """The reply types that some script can write."""
    return frozenset(contract for name in list_script_names() for contract in load_script(name, TeacherFaults()))
