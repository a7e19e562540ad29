"""Conversations with tools: those of a small simulated world, and the user's own (Python modules and MCP servers)."""

from pathlib import Path
from typing import Any

<<<<<<< HEAD
from core.plugins import Part, Plugin


def _load_config() -> Any:
    from plugins.tools.config import ToolSources

    return ToolSources


def _load_family() -> Any:
    from plugins.tools.tool_family import SimulatedToolsFamily

    return SimulatedToolsFamily


def _load_check() -> Any:
    from plugins.tools.checks.call_schema import tool_schema_check

    return tool_schema_check


def _load_script() -> Any:
    from plugins.tools.tool_script import SCRIPT

    return SCRIPT
=======
from core.plugins import Part, Plugin, load_from
>>>>>>> 51e22fa4 (Plugins name their parts by place instead of a function for each)


def _load_hooks() -> Any:
    from plugins.tools.toolbox.toolbox import ToolHooks

    return ToolHooks()


part = load_from(__name__)

PLUGIN = Plugin(
    name="tools",
    about="Conversations with tools: simulated ones, Python modules and MCP servers",
    extra="tools",
    folder=Path(__file__).parent,
    parts=(
<<<<<<< HEAD
        Part("section", "tools", _load_config),
        Part("family", "tool_calls", _load_family),
        Part("check", "tool_schema", _load_check),
        Part("script", "tool_calls", _load_script),
=======
        Part("section", "tools", part("config:ToolSources")),
        Part("family", "tool_calls", part("tool_family:ToolCallsFamily")),
        Part("check", "tool_schema", part("checks.conversation_checks:tool_schema_check")),
        Part("script", "tool_calls", part("tool_script:SCRIPT")),
        Part("script", "user_tools", part("tool_script:SCRIPT")),
>>>>>>> 51e22fa4 (Plugins name their parts by place instead of a function for each)
        Part("hooks", "tools", _load_hooks),
    ),
)
