"""What each step of a run bought: students of its candidates with and without checks, critic, filters and revision."""

from pathlib import Path
from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.ablation.commands import app

    return app


def _load_hooks() -> Any:
    from plugins.ablation.hooks import AblationHooks

    return AblationHooks()


PLUGIN = Plugin(
    name="ablation",
    about="What checks, critic, filters and revision bought: a student of each, on the same requests",
    folder=Path(__file__).parent,
    extra="train",
    parts=(Part("command", "ablate", _load_commands), Part("hooks", "ablation", _load_hooks)),
)
