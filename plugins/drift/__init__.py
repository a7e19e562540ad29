"""Drift: before each run, fixed probes ask whether a teacher is still the model that it was. Makes no sample."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="drift",
    about="Drift: fixed probes before each run show whether a hosted teacher changed under its name",
    folder=Path(__file__).parent,
    extra="run",
    parts=(
        Part("section", "drift", part("config:DriftConfig")),
        Part("hooks", "drift", part("hooks:HOOKS")),
    ),
)
