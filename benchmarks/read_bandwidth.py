"""How fast this machine reads its memory: the roof of decoding, which reads all weights for each token.

Knows no model and no runtime.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

PROCESSORS = Path("/sys/devices/system/cpu")
LEAST_BYTES = 256 * 2**20
CACHES_PER_BUFFER = 4
"""A buffer is at least four times as large as the last-level caches together (STREAM's rule, McCalpin 1995)."""
PASSES = 10
"""The fastest of ten is reported, as STREAM does."""


class ReadBandwidth(NamedTuple):
    """The read rate of the machine's memory."""

    threads: int
    bytes_per_second: float | None
    """None if the buffer would take more than half of the free memory."""
    cache: int | None
    """Bytes of the last-level caches of the processors that this process may use; None if the system does not say."""


def measure_read_bandwidth(threads: int, free: int, processors: Path = PROCESSORS) -> ReadBandwidth:
    """The rate with `threads` threads on a buffer that no cache holds; `free` bytes of memory are free."""
    cache = find_last_level_cache(processors)
    size = max(LEAST_BYTES, CACHES_PER_BUFFER * (cache or 0))
    return ReadBandwidth(threads, measure_read_rate(size, threads) if 2 * size <= free else None, cache)


def measure_read_rate(size: int, threads: int) -> float:
    """Bytes per second that `threads` threads read from a buffer of `size` bytes, each its own part; the fastest pass.

    A buffer that a cache holds is read from there, and several times in a pass, so that starting the threads takes no part of it.
    Reading takes the largest byte, for which NumPy compares whole vector registers: on one core it reads 108 GB/s from the cache,
    where a sum of floats reads 29.
    """
    buffer = np.ones(size, np.uint8)  # written once, so that it has pages of its own
    borders = np.linspace(0, size, threads + 1).astype(int)
    repeats = -(-LEAST_BYTES // size)
    together = threading.Barrier(threads)

    def read_part(part: np.ndarray) -> list[tuple[float, float]]:
        """The begin and the end of each pass."""
        times = []
        for _ in range(PASSES):
            together.wait()
            began = perf_counter()
            for _ in range(repeats):
                part.max()
            times.append((began, perf_counter()))
        return times

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(read_part, (buffer[begin:end] for begin, end in pairwise(borders))))
    seconds = [max(end for _, end in times) - min(begin for begin, _ in times) for times in zip(*parts, strict=True)]
    return float(repeats * size / min(seconds))


def find_last_level_cache(processors: Path = PROCESSORS) -> int | None:
    """Bytes of the largest caches of the processors that this process may use, each cache counted once."""
    caches: dict[tuple[int, str], int] = {}
    for number in os.sched_getaffinity(0):
        for index in (processors / f"cpu{number}" / "cache").glob("index*"):
            try:
                level, shared, size = (
                    (index / name).read_text().strip() for name in ("level", "shared_cpu_list", "size")
                )
                caches[int(level), shared] = int(size.removesuffix("K")) * 1024
            except (OSError, ValueError):  # not described, as in some virtual machines
                continue
    last = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == last) or None
