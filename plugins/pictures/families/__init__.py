"""Families whose conversations have images."""
