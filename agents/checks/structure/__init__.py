"""Checks of JSON values, JSON schemas and tool calls, bounded against hostile schemas and patterns. Fetches
nothing and knows no recipe family.
"""
