"""The topology study: the same seeds under each topology, and a scripted teacher that makes mistakes at known rates."""

from pathlib import Path
from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.study.commands import app

    return app


def _load_faulty_script() -> Any:
    from plugins.study.faulty_script import FaultRates

    return FaultRates


PLUGIN = Plugin(
    name="study",
    about="Topologies compared: yield, undetected errors and cost on the same seeds",
    folder=Path(__file__).parent,
    parts=(Part("command", "study", _load_commands), Part("script", "faulty", _load_faulty_script)),
)
