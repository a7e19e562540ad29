"""Students: starts, training and its objectives, exported files, and what is measured of them. Alone knows torch."""

from core.openmp import set_torch_spins

set_torch_spins()  # before any of its modules loads torch
