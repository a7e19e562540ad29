"""Runs, releases and students as deployments of a Prefect server, with automations. Makes no stage of a run itself."""

from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.schedules.commands import app

    return app


PLUGIN = Plugin(
    name="schedules",
    about="Deployments on a Prefect server: nightly runs, weekly releases, recovery from crashes",
    parts=(Part("command", "deploy", _load_commands), Part("command", "start", _load_commands)),
)
