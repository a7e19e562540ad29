"""Conversations with tools: those of a small simulated world, and the user's own (Python modules and MCP servers)."""

from pathlib import Path
from typing import Any

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


def _load_hooks() -> Any:
    from plugins.tools.toolbox.toolbox import ToolHooks

    return ToolHooks()


PLUGIN = Plugin(
    name="tools",
    about="Conversations with tools: simulated ones, Python modules and MCP servers",
    extra="tools",
    folder=Path(__file__).parent,
    parts=(
        Part("section", "tools", _load_config),
        Part("family", "tool_calls", _load_family),
        Part("check", "tool_schema", _load_check),
        Part("script", "tool_calls", _load_script),
        Part("hooks", "tools", _load_hooks),
    ),
)
