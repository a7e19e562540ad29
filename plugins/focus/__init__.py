"""Seeds from failures: what a student fails at is drawn more often for the next generation. Makes no sample itself."""

from pathlib import Path
from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.focus.commands import app

    return app


def _load_config() -> Any:
    from plugins.focus.config import FocusConfig

    return FocusConfig


def _load_hooks() -> Any:
    from plugins.focus.hooks import FocusHooks

    return FocusHooks()


PLUGIN = Plugin(
    name="focus",
    about="Seeds from failures: what a student fails at is drawn more often for the next generation",
    folder=Path(__file__).parent,
    extra="train",
    parts=(
        Part("command", "focus", _load_commands),
        Part("section", "focus", _load_config),
        Part("hooks", "focus", _load_hooks),
    ),
)
