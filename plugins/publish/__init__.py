"""Releases on the Hugging Face Hub: publish and pull. Makes no release and changes none."""

from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.publish.commands import app

    return app


PLUGIN = Plugin(
    name="publish",
    about="Releases on the Hugging Face Hub: publish and pull",
    extra="publish",
    parts=(Part("command", "publish", _load_commands), Part("command", "pull", _load_commands)),
)
