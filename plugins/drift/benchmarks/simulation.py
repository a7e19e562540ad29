"""Simulates nights of a teacher from the recorded ones of `bank/`, as `drift.json` declares: alarms of an unchanged teacher, and
how soon a changed one is found. Asks nobody.

    python -m plugins.drift.benchmarks.simulation

Words are drawn from the recorded log-probabilities of first tokens. With seeds honoured a reply's seed chooses the same point of
the distribution each night; ignored, another. The control watches only how many of 200 samples are kept.
"""

import json
import math
import sys
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import NamedTuple

from scipy.stats import binom, fisher_exact

from plugins.drift.comparison import compare_night, spend_level
from plugins.drift.fingerprint import Fingerprint, Logprobs, Night, average_rounds
from plugins.drift.measurement import WORD_ROUNDS

BANK = Path(__file__).parent / "bank"
SEQUENCES, NIGHTS = 20, 1_000
SHORT_SEQUENCES, SHORT_NIGHTS = 1_000, 20
POWER_SEQUENCES, WORD_SEQUENCES, AFTER, WITHIN = 200, 40, (1, 2, 10, 100), 5
NOISES = (0.0, 0.002, 0.01, 0.05)
"""Nats, of each token and night."""
UNEQUAL = 0.5
"""Of the logarithms of the probes' noises: their standard deviation."""
CHANGES = {
    "Q8_0": ("base", "q8_0"), "Q4_0": ("base", "q4_0"), "system prompt": ("base", "system"),
    "chat template": ("base", "template"), "1 step": ("q8_0", "s1"), "4 steps": ("q8_0", "s4"), "16 steps": ("q8_0", "s16"),
}  # fmt: skip
"""By name, the banks before and after the change."""
SAMPLES = 200
"""Of a night's yield."""

Reader = Callable[[str, Random], Night]
"""Draws a night of a bank."""


@cache
def read_bank(name: str) -> list[list[list[dict[str, float]]]]:
    return [night["logprobs"] for night in json.loads((BANK / f"{name}.json").read_text())]


def draw_logprobs(noise: float, *, unequal: float = 0.0, uneven: bool = False) -> Reader:
    """Nights with a noise per probe that differs (`unequal`), or without any in half of them (`uneven`)."""

    def draw(bank: str, rng: Random) -> Night:
        recorded = rng.choice(read_bank(bank))
        tonight = 0.0 if uneven and rng.random() < 0.5 else noise
        probes = [
            add_noise(rounds, tonight * math.exp(unequal * Random(probe).gauss(0, 1)), rng)
            for probe, rounds in enumerate(recorded)
        ]
        return Night("bank", "logprobs", logprobs=probes if tonight else recorded)

    return draw


def add_noise(rounds: Sequence[Logprobs], noise: float, rng: Random) -> list[Logprobs]:
    """One value for each token, in all rounds."""
    added = {token: rng.gauss(0, noise) for token in sorted(set().union(*rounds))}
    return [{token: value + added[token] for token, value in one.items()} for one in rounds]


def draw_words(noise: float = 0.0, *, honoured: bool, uneven: bool = False) -> Reader:
    """A reply's word is the place of a random number in the cumulative probabilities of first tokens, the likeliest first."""

    def draw(bank: str, rng: Random) -> Night:
        tonight = 0.0 if uneven and rng.random() < 0.5 else noise
        words = []
        for probe, rounds in enumerate(read_bank(bank)[0]):
            named, shares = list_words(bank, probe)
            if tonight:
                named, shares = rank_words(average_rounds(add_noise(rounds, tonight, rng)))
            seeds = Random(probe) if honoured else rng
            words.append([named[bisect(shares, seeds.random())] for _ in range(WORD_ROUNDS)])
        return Night("bank", "words", words=words)

    return draw


@cache
def list_words(bank: str, probe: int) -> tuple[list[str], list[float]]:
    return rank_words(average_rounds(read_bank(bank)[0][probe]))


def rank_words(tokens: Logprobs) -> tuple[list[str], list[float]]:
    """First tokens and their cumulative probabilities; what is left is one word."""
    ordered = sorted(tokens, key=lambda token: -tokens[token])
    return [*ordered, "other"], list(accumulate(math.exp(tokens[token]) for token in ordered))


def follow(
    draw: Reader, banks: Sequence[str], rng: Random, before: Fingerprint | None = None
) -> Iterator[tuple[str, Fingerprint]]:
    """The verdict and the fingerprint of each night."""
    for bank in banks:
        found = compare_night(before, draw(bank, rng))
        before = found.fingerprint
        yield found.verdict, before


class Alarms(NamedTuple):
    alarmed: int
    """Sequences with an alarm."""
    nights: int
    """With a verdict of `changed`, of all sequences."""


def count_alarms(draw: Reader, sequences: int, nights: int) -> Alarms:
    changed = [
        sum(verdict == "changed" for verdict, _ in follow(draw, ["base"] * nights, Random(seed)))
        for seed in range(sequences)
    ]
    return Alarms(sum(map(bool, changed)), sum(changed))


def measure_power(draw: Reader, sequences: int) -> dict[str, dict[int, tuple[float, float]]]:
    """For each change and number of nights before it: the share of sequences with an alarm on its first night, and within 5."""
    found: dict[str, dict[int, list[int]]] = {change: {after: [0, 0] for after in AFTER} for change in CHANGES}
    for first in sorted({pair[0] for pair in CHANGES.values()}):
        for seed in range(sequences):
            rng = Random(seed)
            prints = [one for _, one in follow(draw, [first] * max(AFTER), rng)]
            for change, (before, changed) in CHANGES.items():
                for after in AFTER if before == first else ():
                    nights = [one == "changed" for one, _ in follow(draw, [changed] * WITHIN, rng, prints[after - 1])]
                    found[change][after][0] += nights[0]
                    found[change][after][1] += any(nights)
    return {
        change: {after: (hits[0] / sequences, hits[1] / sequences) for after, hits in one.items()}
        for change, one in found.items()
    }


def find_seen_yield(after: int) -> float:
    """The control: the highest yield below 50 % that an exact test of the kept samples finds in 95 % of nights, compared with
    `after` nights of 50 %, at the level of a verdict.
    """
    known, level = after * SAMPLES, spend_level(max(1, after - 1))
    tables = ([[kept, SAMPLES - kept], [known // 2, known - known // 2]] for kept in range(SAMPLES // 2))
    most = sum(fisher_exact(table).pvalue <= level for table in tables) - 1
    return max(percent / 100 for percent in range(50) if binom.cdf(most, SAMPLES, percent / 100) >= 0.95)


def list_readers() -> dict[str, Reader]:
    """Those of `drift.json`; the last of each kind violates an assumption of the bound."""
    named = {f"log-probabilities, noise {noise:g}": draw_logprobs(noise) for noise in NOISES}
    named["log-probabilities, noise 0.02, unequal by probe"] = draw_logprobs(0.02, unequal=UNEQUAL)
    named["log-probabilities, noise 0 or 0.05 by night"] = draw_logprobs(0.05, uneven=True)
    named["words, seeds ignored"] = draw_words(honoured=False)
    named |= {
        f"words, seeds honoured, noise {noise:g}": draw_words(noise, honoured=True) for noise in (0.0, 0.01, 0.05)
    }
    named["words, seeds honoured, noise 0 or 0.05 by night"] = draw_words(0.05, honoured=True, uneven=True)
    return named


def print_line(cells: Sequence[object]) -> None:
    sys.stdout.write(f"| {' | '.join(map(str, cells))} |\n")
    sys.stdout.flush()


def print_simulation() -> None:
    readers, recorded = list_readers(), read_bank("base")
    print_line([f"{sum(night == recorded[0] for night in recorded)} of {len(recorded)} recorded nights are equal"])
    print_line(
        ["replies", f"alarmed, of {SHORT_SEQUENCES} x {SHORT_NIGHTS} nights", f"of {SEQUENCES} x {NIGHTS}", "alarms"]
    )
    for name, draw in readers.items():
        short, long = count_alarms(draw, SHORT_SEQUENCES, SHORT_NIGHTS), count_alarms(draw, SEQUENCES, NIGHTS)
        print_line([name, short.alarmed, long.alarmed, short.nights + long.nights])
    print_line(["replies", "nights before", *CHANGES])
    for name, draw in readers.items():
        if " or " not in name:
            print_power(name, measure_power(draw, WORD_SEQUENCES if name.startswith("words") else POWER_SEQUENCES))
    for after in AFTER:
        print_line([f"control: a yield of 50 % must fall to {find_seen_yield(after):.0%}", after])


def print_power(name: str, power: dict[str, dict[int, tuple[float, float]]]) -> None:
    for after in AFTER:
        print_line(
            [name, after, *(f"{first:.0%}, {soon:.0%}" for first, soon in (power[one][after] for one in CHANGES))]
        )


if __name__ == "__main__":
    print_simulation()
