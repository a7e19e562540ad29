"""Releases and lineages of a run's dataset, and the gate before them; knows no row."""
