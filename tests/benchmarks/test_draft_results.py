"""A student as the draft of its teacher: acceptance, cost and break-even by hand, and on tiny models."""

from pathlib import Path

import pytest

from benchmarks.draft_results import FASTER, SLOWER, UNCLEAR, DraftResult, build_draft_result, list_draft_lines
from benchmarks.draft_speed import DraftComparison, PairedReply, TimedReply
from benchmarks.energy_counters import count_joules, find_energy_counters, read_energy
from teachers.drafts import DraftCounts

STEPS = {1: 0.1, 2: 0.13, 4: 0.22, 8: 0.4}


def reply(seconds: float, text: str = "a", tokens: int = 10) -> TimedReply:
    """One whose prompt took a tenth of a second."""
    return TimedReply({"role": "assistant", "content": text}, tokens, seconds + 0.1, seconds)


def build(plain: float, drafted: float, counts: DraftCounts, text: str = "a") -> DraftResult:
    """The result of three equal pairs of replies of 10 tokens."""
    pairs = [PairedReply(reply(plain), reply(drafted * factor, text)) for factor in (0.99, 1, 1.01)]
    return build_draft_result(DraftComparison(pairs, counts), ["q"] * 3, 3, STEPS)


def test_break_even_is_where_a_verification_gives_as_many_tokens_as_it_costs() -> None:
    """9 steps of 0.1 s; with the draft, 3 verifications accept 6 of 9 tokens in 0.66 s: 0.22 s each, 2.2 steps."""
    found = build(0.9, 0.66, DraftCounts(30, 9, 27, 18))
    assert found.acceptance == pytest.approx(2 / 3)
    assert found.tokens_per_verification == pytest.approx(3)
    assert found.verification_cost == pytest.approx(2.2)
    assert found.break_even == pytest.approx(0.4), "1.2 accepted of 3 proposed"
    assert found.speedup
    assert found.speedup.value == pytest.approx(1 / 0.76, rel=1e-3)
    assert found.conclusion == FASTER
    lines = list_draft_lines(found)
    assert lines[0] == "  as its teacher's draft: 67 % of proposed tokens accepted, 3.00 tokens per verification"
    assert lines[1] == "    3 requests, 3 tokens at once"
    assert lines[2].startswith("    3.0 s without the draft, 2.3 s with it: 1.32 (")
    assert lines[2].endswith(") times as fast, faster")
    assert lines[3:] == [
        "    in seconds of one token: a batch of 2 1.3, of 4 2.2, of 8 4.0",
        "    a verification, drafting included: 2.2; break-even at 40 % accepted",
        "    greedy replies are identical with and without it",
    ]
    assert max(map(len, lines)) <= 100

    at_break_even = build(0.9, 0.9, DraftCounts(30, 9, 27, 18))
    assert at_break_even.break_even == pytest.approx(at_break_even.acceptance)
    assert at_break_even.conclusion == UNCLEAR


def test_a_draft_that_cannot_pay_says_so() -> None:
    found = build(0.9, 4.5, DraftCounts(30, 27, 81, 0))
    assert (found.acceptance, found.conclusion) == (0, SLOWER)
    assert found.break_even
    assert found.break_even > 1
    assert "a verification, drafting included: 5.0; no acceptance pays for it here" in "\n".join(
        list_draft_lines(found)
    )
    nothing = build(0.9, 0.9, DraftCounts(30, 0, 0, 0))
    assert (nothing.verification_cost, nothing.break_even) == (None, None)
    assert "nothing was proposed" in "\n".join(list_draft_lines(nothing))


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
