"""The two engines of the family `tool_calls`: simulated tools, and the user's own."""
