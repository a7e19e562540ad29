"""A model's speed, KV cache and energy on this machine, in llama.cpp; the machine's files by stand-ins of their layout."""

from pathlib import Path

import pytest

from benchmarks.energy_counters import count_joules, find_energy_counters, read_energy
from tests.support.exported_students import export_student


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(tmp_path_factory.mktemp("student"))


def write_zone(folder: Path, zone: str, name: str, energy: int, largest: int = 1_000_000) -> Path:
    """A zone of the kernel's power capping framework; returns its counter."""
    (folder / zone).mkdir(parents=True)
    for file, value in {"name": name, "energy_uj": energy, "max_energy_range_uj": largest}.items():
        (folder / zone / file).write_text(f"{value}\n")
    return folder / zone / "energy_uj"


def test_energy_is_that_of_packages_and_memory_also_when_a_counter_begins_again(tmp_path: Path) -> None:
    assert find_energy_counters(tmp_path / "none") == []
    (tmp_path / "intel-rapl").mkdir()
    first = write_zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    write_zone(tmp_path, "intel-rapl:0:0", "core", 7)
    memory = write_zone(tmp_path, "intel-rapl:0:1", "dram", 5)
    second = write_zone(tmp_path, "intel-rapl:1", "package-1", 100)
    write_zone(tmp_path, "intel-rapl:2", "psys", 1)
    write_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 900_000)
    counters = find_energy_counters(tmp_path)
    assert {counter.file for counter in counters} == {first, memory, second}

    before = read_energy(counters)
    assert count_joules(counters, before, read_energy(counters)) is None, "counters that stand still measure nothing"
    first.write_text("50000\n")  # 100,000 to the end of its range, and 50,000 more
    memory.write_text("10005\n")
    second.write_text("40100\n")
    assert count_joules(counters, before, read_energy(counters)) == pytest.approx(0.2)
    second.write_text("")
    assert read_energy(counters) is None
    assert count_joules(counters, before, None) is None
    assert find_energy_counters(tmp_path) == [], "a sum without one of the packages would be too small"
