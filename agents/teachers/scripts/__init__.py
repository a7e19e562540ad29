"""Scripts of fake teachers, a module each: `fake/NAME` speaks by the `SCRIPT` of `NAME`."""

import pkgutil
from importlib import import_module
from typing import cast

from agents.teachers.scripts.common import Script

NAMES = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "common")


def script(name: str) -> Script:
    """Raises KeyError where there is none of this name."""
    if name not in NAMES:
        raise KeyError(name)
    return cast(Script, import_module(f"{__name__}.{name}").SCRIPT)
