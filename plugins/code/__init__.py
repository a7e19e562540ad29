"""Programming tasks whose solutions pass tests that can fail, in the sandbox."""
