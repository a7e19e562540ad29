"""The fingerprint of a teacher: what its replies to the probes were in all nights since it last changed. Asks nobody."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

from core.errors import StoreError
from core.plugins import locate_data
from core.runs.run_dir import RunDir
from core.sample import FrozenModel
from core.storage.atomic_files import read_record
from plugins.drift.config import NAME
from plugins.drift.probes import PROBES

Logprobs = Mapping[str, float]
"""The likeliest first tokens of one reply."""
OTHER = ""
"""A word that no other reply has."""


class Night(NamedTuple):
    """The replies to the probes before one run: for each probe, one of each round; None for no reply."""

    teacher: str
    """The model, and all else that is known to decide its replies."""
    kind: Literal["logprobs", "words"]
    logprobs: Sequence[Sequence[Logprobs | None]] = ()
    words: Sequence[Sequence[str | None]] = ()
    degraded: Sequence[str] = ()

    @property
    def answered(self) -> int:
        """Probes with a reply in every round."""
        replies = self.logprobs if self.kind == "logprobs" else self.words
        return sum(None not in one for one in replies)


class Spread(FrozenModel):
    """A variance, in squared nats, and its degrees of freedom."""

    variance: float = 0.0
    freedom: int = 0

    def add(self, other: "Spread") -> "Spread":
        freedom = self.freedom + other.freedom
        total = self.variance * self.freedom + other.variance * other.freedom
        return Spread(variance=total / freedom if freedom else 0.0, freedom=freedom)


class Fingerprint(FrozenModel):
    """Sums over nights, so that a file of one run is all that the next one reads."""

    teacher: str
    kind: Literal["logprobs", "words"]
    nights: int
    """Since the teacher last changed."""
    comparisons: int
    """Of all nights, before the last change too: they share the probability of a false alarm."""
    logprobs: tuple[dict[str, float], ...] = ()
    """Of each probe: the mean of each token over rounds and nights."""
    within: Spread = Spread()
    """Of the rounds of one night."""
    between: tuple[Spread, ...] = ()
    """Of the nights, by probe; empty until there are two."""
    words: tuple[dict[str, int], ...] = ()
    """Of each probe: replies by word."""
    replies: tuple[tuple[str | None, ...], ...] = ()
    """Words of the last night, whose seeds every night has."""
    repeated: int = 0
    """Replies that were equal in two nights in a row, under the same seed."""
    repeats: int = 0
    """All that were compared so."""


def average_rounds(rounds: Sequence[Logprobs | None]) -> dict[str, float]:
    """The mean of each token that every round lists."""
    lists = [one for one in rounds if one]
    common = set.intersection(*map(set, lists)) if lists else set()
    return {token: fmean([one[token] for one in lists]) for token in sorted(common)}


def measure_round_spread(night: Night) -> Spread:
    """Of the rounds of a night. The tokens of a probe count as one, since they depend on each other."""
    spread = Spread()
    for rounds in night.logprobs:
        lists, means = [one for one in rounds if one], average_rounds(rounds)
        if len(lists) > 1 and means:
            squares = [fmean([(one[token] - mean) ** 2 for token, mean in means.items()]) for one in lists]
            spread = spread.add(Spread(variance=sum(squares) / (len(lists) - 1), freedom=len(lists) - 1))
    return spread


def measure_distance(before: Logprobs, now: Logprobs) -> float | None:
    """The mean square of the differences over the tokens of `before`. One that `now` does not list is at most its lowest one."""
    if not before or not now:
        return None
    lowest = min(now.values())
    differences = [now[token] - old if token in now else max(0.0, old - lowest) for token, old in before.items()]
    return fmean([difference**2 for difference in differences])


def begin_fingerprint(night: Night, comparisons: int) -> Fingerprint:
    return Fingerprint(
        teacher=night.teacher, kind=night.kind, nights=1, comparisons=comparisons,
        logprobs=tuple(map(average_rounds, night.logprobs)), within=measure_round_spread(night),
        words=tuple(dict(Counter(filter(None, words))) for words in night.words), replies=tuple(map(tuple, night.words)),
    )  # fmt: skip


def add_night(before: Fingerprint, now: Fingerprint) -> Fingerprint:
    """The fingerprint with that of a night of the same teacher."""
    distances = [measure_distance(*pair) for pair in zip(before.logprobs, now.logprobs, strict=True)]
    added = [
        Spread(variance=one / (1 + 1 / before.nights), freedom=1) if one is not None else Spread() for one in distances
    ]
    known = before.between or [Spread()] * len(added)
    same, compared = count_repeats(before.replies, now.replies)
    return now.model_copy(update={
        "nights": before.nights + 1, "comparisons": before.comparisons,
        "logprobs": tuple(_average_means(*pair, before.nights) for pair in zip(before.logprobs, now.logprobs, strict=True)),
        "within": before.within.add(now.within),
        "between": tuple(old.add(new) for old, new in zip(known, added, strict=True)),
        "words": tuple(dict(Counter(old) + Counter(new)) for old, new in zip(before.words, now.words, strict=True)),
        "repeated": before.repeated + same, "repeats": before.repeats + compared,
    })  # fmt: skip


def _average_means(before: Logprobs, now: Logprobs, nights: int) -> dict[str, float]:
    """Only of tokens that all nights list."""
    if not before or not now:
        return dict(before or now)
    return {token: (nights * old + now[token]) / (nights + 1) for token, old in before.items() if token in now}


def count_repeats(before: Sequence[Sequence[str | None]], now: Sequence[Sequence[str | None]]) -> tuple[int, int]:
    """Equal replies of two nights, and all that are compared."""
    pairs = [pair for one in zip(before, now, strict=False) for pair in zip(*one, strict=True) if None not in pair]
    return sum(old == new for old, new in pairs), len(pairs)


def find_degradations(night: Sequence[Sequence[Logprobs | None]], asked: int) -> list[str]:
    """In words, what services do to log-probabilities against distillation: zeroes, rounds, cuts them or adds noise."""
    lists = [one for rounds in night for one in rounds if one]
    if not lists:
        return []
    values = [value for one in lists for value in one.values() if value > LOWEST]
    if all(value == 0 for value in values):
        return [ZEROED]
    found = []
    if any(sum(map(math.exp, one.values())) > 1 + ROUNDING_MASS for one in lists):
        found.append("sum to more than 1")
    step = next(
        (step for step in STEPS if all(abs(value / step - round(value / step)) < 1e-6 for value in values)), None
    )
    if step:
        found.append(f"rounded to {step:g}")
    if (longest := max(map(len, lists))) < asked:
        found.append(f"cut to the top {longest}")
    if measure_round_spread(Night("", "logprobs", night)).variance > NOISE**2:
        found.append(f"noisy, by over {NOISE:g} nats between equal requests")
    return found


LOWEST = -49.9
"""Servers write impossible tokens in several ways; the protocol's reader makes them -50."""
ZEROED = "zeroed"
STEPS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001)
ROUNDING_MASS = 0.05
"""Above 1, that rounding explains."""
NOISE = 0.1
"""Nats, a choice: 20 times the least noise that is assumed of a server."""


def locate_fingerprint(run: RunDir, teacher: str) -> Path:
    return locate_data(run.path, NAME) / f"{teacher}.json"


def find_fingerprint(run: RunDir, teacher: str) -> Fingerprint | None:
    """The newest of the recipe's earlier runs, which are next to `run`; None if there is none that can be read."""
    recipe = run.read_recipe().name
    files = []
    for manifest in run.path.parent.glob(f"{recipe}-*/manifest.json"):
        other = RunDir(manifest.parent)
        file = locate_fingerprint(other, teacher)
        if other.name != run.name and file.is_file():
            files.append((file.stat().st_mtime, file))
    for _, file in sorted(files, reverse=True):
        try:
            found = read_record(file, Fingerprint)
        except StoreError:
            continue
        if max(len(found.logprobs), len(found.words)) == len(PROBES):
            return found
    return None
