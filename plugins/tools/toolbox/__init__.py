"""The user's own tools: modules in the sandbox and MCP servers, with bounds on what either returns. Knows no teacher, no family
and no topology.
"""
