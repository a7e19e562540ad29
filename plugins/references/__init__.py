"""References: real text that `assess` compares with, prepared from any files and tested for false alarms."""

from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.references.commands import app

    return app


def _load_reference() -> Any:
    from plugins.references.library import reference

    return reference


PLUGIN = Plugin(
    name="references",
    about="Makes a reference of real texts for `assess`, and measures its false alarms",
    parts=(
        Part("command", "reference", _load_commands),
        Part("command", "self-test", _load_commands),
        Part("function", "reference", _load_reference),
    ),
)
