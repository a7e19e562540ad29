"""Runs, releases and students as deployments of a Prefect server, with automations. Makes no stage of a run itself."""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="schedules",
    about="Deployments on a Prefect server: nightly runs, weekly releases, recovery from crashes",
    parts=(Part("command", "deploy", part("commands:app")), Part("command", "start", part("commands:app"))),
)
