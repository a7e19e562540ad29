"""Energy counters of the processors (RAPL), as the Linux kernel shows them in `/sys/class/powercap`. Knows no model.

The layout is that of the kernel's Documentation/power/powercap/powercap.rst: a folder per zone with `name`, `energy_uj` and
`max_energy_range_uj`. Since 2020 (CVE-2020-8694), only root may read `energy_uj` unless the machine's owner allows it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

POWERCAP = Path("/sys/class/powercap")
ZONES = "intel-rapl:*"
"""Also of AMD's processors. `intel-rapl-mmio` has the same packages again."""


class EnergyCounter(NamedTuple):
    file: Path
    range: int
    """Microjoules after which the counter begins at 0 again."""

    def read(self) -> int:
        """Microjoules. Raises OSError or ValueError if it cannot be read."""
        return int(self.file.read_text())


def find_energy_counters(folder: Path = POWERCAP) -> list[EnergyCounter]:
    """The counters of all packages and of the memory next to them; none if one of them cannot be read.

    Cores and graphics are parts of their package. A platform zone (`psys`) contains packages, and few machines have one.
    """
    counters = []
    for zone in sorted(folder.glob(ZONES)):
        try:
            name = (zone / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                counter = EnergyCounter(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()))
                counter.read()
                counters.append(counter)
        except (OSError, ValueError):
            return []
    return counters


def read_energy(counters: Sequence[EnergyCounter]) -> list[int] | None:
    """Each counter's microjoules; None if one cannot be read."""
    try:
        return [counter.read() for counter in counters]
    except (OSError, ValueError):
        return None


def count_joules(
    counters: Sequence[EnergyCounter], before: Sequence[int] | None, after: Sequence[int] | None
) -> float | None:
    """Joules between two readings, between which a counter began at 0 again at most once; None if no counter moved, or a
    reading failed.
    """
    if before is None or after is None:
        return None
    used = sum((end - begin) % counter.range for counter, begin, end in zip(counters, before, after, strict=True))
    return used / 1e6 or None
