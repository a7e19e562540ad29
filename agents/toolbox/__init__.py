"""The user's own tools: modules in the sandbox, MCP servers, and what may be believed of either. Knows no teacher, no family and
no topology.
"""
