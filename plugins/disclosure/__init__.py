"""Does a document leak into the data? Documents are held back by seed, and rows are compared with both halves. Asks no model."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="disclosure",
    about="Does a document leak into the data: rows compared with used documents and with some that were held back",
    folder=Path(__file__).parent,
    extra="documents",
    parts=(
        Part("command", "disclosure", part("commands:app")),
        Part("section", "disclosure", part("config:DisclosureConfig")),
        Part("hooks", "disclosure", part("hooks:HOOKS")),
    ),
)
