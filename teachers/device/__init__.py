"""Measurements of the machine: the read bandwidth of its memory, and the energy of its processors. Knows no model."""
