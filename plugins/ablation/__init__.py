"""What each step of a run bought: students of its candidates with and without checks, critic, filters and revision; whether
a step narrows the data more than a random drop; and what its next rows will bring.
"""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="ablation",
    about="What checks, critic, filters and revision bought, whether they narrow the data, and what more rows will bring",
    folder=Path(__file__).parent,
    extra="train",
    parts=(
        Part("command", "ablate", part("commands:app")),
        Part("command", "selection", part("commands:app")),
        Part("command", "forecast", part("commands:app")),
        Part("section", "selection", part("config:SelectionConfig")),
        Part("hooks", "ablation", part("hooks:HOOKS")),
    ),
)
