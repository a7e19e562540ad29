"""How often a thread of GNU OpenMP looks for the others at a barrier before it sleeps.

With the default of 300,000 a thread spins for milliseconds at each barrier if another process has the processor of the thread
that it waits for. A spin takes about 50 cycles, so 1,000 spins cost as much as sleeping and waking.
"""

import os

SPIN_VARIABLE = "GOMP_SPINCOUNT"
LLAMA_SPINS = "1000"
"""Of llama.cpp's threads, which meet several hundred times for a token; measured by `benchmarks/busy.py`. llama.cpp's own
`cpuparams.poll` does nothing in a build with OpenMP."""
TORCH_SPINS = "10000"
"""Of torch's threads, measured by `benchmarks/busy_training.py`."""


def set_torch_spins() -> None:
    """Takes effect if torch is not loaded yet. The user's own choice counts."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, TORCH_SPINS)


def choose_llama_spins() -> str:
    """What llama.cpp's process gets: the user's own choice, but not what this process set for torch."""
    chosen = os.environ.get(SPIN_VARIABLE, TORCH_SPINS)
    return LLAMA_SPINS if chosen == TORCH_SPINS else chosen
