"""Releases of filtered folders, and releases on the Hugging Face Hub: publish and pull."""

from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.publish.commands import app

    return app


def _load_rows_release() -> Any:
    from plugins.publish.rows_release import release_filtered_folder

    return release_filtered_folder


PLUGIN = Plugin(
    name="publish",
    about="Releases of filtered folders, and releases on the Hugging Face Hub: publish and pull",
    extra="publish",
    parts=(
        Part("command", "publish", _load_commands),
        Part("command", "pull", _load_commands),
        Part("release", "rows", _load_rows_release),
    ),
)
