"""Better prompts for a generator: examples, wording and temperature, chosen by verified rows per teacher token."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="improve",
    about="Better prompts for a generator: examples, wording and temperature, chosen by verified rows per teacher token",
    folder=Path(__file__).parent,
    extra="improve",
    parts=(Part("command", "improve", part("commands:app")),),
)
