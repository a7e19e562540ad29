"""What the package `extras` adds to Stillhouse. Each part is imported when a recipe or a command names it."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from stillhouse import Part, Plugin


def _load(module: str, name: str) -> Callable[[], Any]:
    return lambda: getattr(import_module(module), name)


PLUGIN = Plugin(
    name="extras",
    about="A check, a filter, a family, a protocol and a loss",
    parts=(
        Part("check", "calm", _load("extras_checks", "calm")),
        Part("filter", "sign_off", _load("extras_filters", "SignOff")),
        Part("family", "definitions", _load("extras_families", "DefinitionFamily")),
        Part("protocol", "ollama", _load("extras_protocols", "ollama")),
        Part("loss", "focal", _load("extras_losses", "focal")),
    ),
)
