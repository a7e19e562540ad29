"""What each step of a run bought: students of its candidates with and without checks, critic, filters and revision; and whether
a step narrows the data more than a random drop.
"""

from pathlib import Path
from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.ablation.commands import app

    return app


def _load_selection_config() -> Any:
    from plugins.ablation.config import SelectionConfig

    return SelectionConfig


def _load_hooks() -> Any:
    from plugins.ablation.hooks import AblationHooks

    return AblationHooks()


PLUGIN = Plugin(
    name="ablation",
    about="What checks, critic, filters and revision bought, and whether they narrow the data",
    folder=Path(__file__).parent,
    extra="train",
    parts=(
        Part("command", "ablate", _load_commands),
        Part("command", "selection", _load_commands),
        Part("section", "selection", _load_selection_config),
        Part("hooks", "ablation", _load_hooks),
    ),
)
