"""Releases that anybody can rebuild: a release carries its recording, and is made again from it, without a teacher."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="rebuild",
    about="Releases that anybody can rebuild: made again from their recording, without a teacher, byte for byte",
    folder=Path(__file__).parent,
    extra="run",
    parts=(
        Part("command", "rebuild", part("commands:app")),
        Part("section", "rebuild", part("config:RebuildConfig")),
        Part("hooks", "rebuild", part("hooks:HOOKS")),
    ),
)
