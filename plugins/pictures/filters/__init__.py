"""Filters of rows by their images."""
