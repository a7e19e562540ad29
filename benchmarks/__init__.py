"""Measurements of this project, each written into README.md by code. `make bench` runs them all."""
