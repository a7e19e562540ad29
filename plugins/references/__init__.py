"""References: real text that `assess` compares with, prepared from any files and tested for false alarms."""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="references",
    about="Makes a reference of real texts for `assess`, and measures its false alarms",
    parts=(
        Part("command", "reference", part("commands:app")),
        Part("command", "self-test", part("commands:app")),
        Part("function", "reference", part("library:reference")),
    ),
)
