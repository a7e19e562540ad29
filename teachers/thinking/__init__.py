"""Thinking of teachers: how much is requested, how it is read, and how it goes together with a reply schema. Knows no server."""
