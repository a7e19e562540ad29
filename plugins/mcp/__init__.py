"""`stillhouse mcp` and `skill`: the commands as tools of the Model Context Protocol, within limits of the user, and a skill
for coding agents. The package `agents` is about others: those that make samples.
"""

from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.mcp.commands import app

    return app


PLUGIN = Plugin(
    name="mcp",
    about="The commands as tools of the Model Context Protocol, and a skill for coding agents",
    extra="mcp",
    parts=(Part("command", "mcp", _load_commands), Part("command", "skill", _load_commands)),
)
