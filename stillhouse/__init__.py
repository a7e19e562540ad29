"""Stillhouse as a library: the commands as functions, for notebooks and programs.

    import stillhouse

    run = stillhouse.run("smoke")
    run.dataset.train          # a polars frame
    clean = stillhouse.filter("rows.jsonl", filters=["exact", "minhash"])

Importing it is cheap: every function imports what it needs when it is called.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.extensions import *  # noqa: F403
    from stillhouse.functions import *  # noqa: F403
    from stillhouse.results import *  # noqa: F403

_MODULES = ("functions", "results", "extensions")
"""The public names are those in their `__all__`, and the functions of plugins."""


def __getattr__(name: str) -> Any:
    """Import a public name, or a function of a plugin, when it is first used."""
    from core import plugins

    if name in ("Part", "Plugin"):  # of declarations, which every command imports
        return getattr(plugins, name)
    if name == "__all__":
        return _list_own_names()
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is None:  # no package of an installed wheel
        for module in map(_import_module, _MODULES):
            if name in module.__all__:
                return getattr(module, name)
        if found := plugins.find_part("function", name):
            return plugins.import_part(*found)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from core.plugins import list_offered_names

    return [*_list_own_names(), *list_offered_names("function")]


def _list_own_names() -> list[str]:
    return sorted(name for module in map(_import_module, _MODULES) for name in module.__all__)


def _import_module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")
