"""Scripts of fake teachers, a module each: `fake/NAME` speaks by the `SCRIPT` of `NAME`."""

import pkgutil
from importlib import import_module
from typing import cast

from agents.teachers.scripts.common import Script
from core.recipe import Faults

NAMES = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "common")


def script(name: str, faults: Faults) -> Script:
    """The module's `SCRIPT`, or what its `script` makes of `faults`. Raises KeyError where there is none of this name."""
    if name not in NAMES:
        raise KeyError(name)
    module = import_module(f"{__name__}.{name}")
    return cast(Script, module.script(faults) if hasattr(module, "script") else module.SCRIPT)
