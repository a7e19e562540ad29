"""Releases of filtered folders, and releases on the Hugging Face Hub: publish and pull."""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="publish",
    about="Releases of filtered folders, and releases on the Hugging Face Hub: publish and pull",
    extra="publish",
    parts=(
        Part("command", "publish", part("commands:app")),
        Part("command", "pull", part("commands:app")),
        Part("release", "rows", part("rows_release:release_filtered_folder")),
    ),
)
