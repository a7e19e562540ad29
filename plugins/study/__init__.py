"""The topology study: the same seeds under each topology, and a scripted teacher that makes mistakes at known rates."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="study",
    about="Topologies compared: yield, undetected errors and cost on the same seeds",
    folder=Path(__file__).parent,
    parts=(Part("command", "study", part("commands:app")), Part("script", "faulty", part("faulty_script:FaultRates"))),
)
