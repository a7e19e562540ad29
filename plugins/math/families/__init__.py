"""Families with a known right answer."""
