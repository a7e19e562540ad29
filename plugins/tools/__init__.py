"""Conversations with tools: those of simulated services, and the user's own (Python modules and MCP servers)."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="tools",
    about="Conversations with tools: simulated ones, Python modules and MCP servers",
    extra="tools",
    folder=Path(__file__).parent,
    parts=(
        Part("section", "tools", part("config:ToolSources")),
        Part("family", "tool_calls", part("tool_family:SimulatedToolsFamily")),
        Part("check", "tool_schema", part("checks.call_schema:tool_schema_check")),
        Part("script", "tool_calls", part("tool_script:SCRIPT")),
        Part("hooks", "tools", part("toolbox.toolbox:HOOKS")),
    ),
)
