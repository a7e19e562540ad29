"""Seeds from failures: what a student fails at is drawn more often for the next generation. Makes no sample itself."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="focus",
    about="Seeds from failures: what a student fails at is drawn more often for the next generation",
    folder=Path(__file__).parent,
    extra="train",
    parts=(
        Part("command", "focus", part("commands:app")),
        Part("section", "focus", part("config:FocusConfig")),
        Part("hooks", "focus", part("hooks:HOOKS")),
    ),
)
