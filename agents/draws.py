"""Draws: what a sample is conditioned on beside its seed: a persona, a category of a taxonomy, a difficulty, by weight.

Knows no family: a draw is a name and a text.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate
from math import inf
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from core.errors import Problem
from core.recipe import Draw, find_file


class Choices(NamedTuple):
    """What one draw chooses from."""

    values: tuple[str, ...]
    upto: tuple[float, ...]
    """Weights, summed up to each value."""

    def draw(self, rng: Random) -> str:
        return rng.choices(self.values, cum_weights=self.upto)[0]


def choices_of(draws: Mapping[str, Draw], folder: Path) -> tuple[dict[str, Choices], list[Problem]]:
    """The choices of a recipe in `folder` by name, and what is wrong with them."""
    found, problems = {}, []
    for name, draw in draws.items():
        where = f"seeds.draw.{name}"
        try:
            weights = dict(_weights(draw, folder))
        except ValueError as error:
            problems.append(Problem(where, str(error)))
            continue
        if not weights or not sum(weights.values()):
            problems.append(Problem(where, "has nothing to draw; name at least one value with a weight above 0"))
        else:
            found[name] = Choices(tuple(weights), tuple(accumulate(weights.values())))
    return found, problems


def _weights(draw: Draw, folder: Path) -> Iterator[tuple[str, float]]:
    """Values with their weights. Raises ValueError."""
    if isinstance(draw, str):
        yield from ((line, 1.0) for line in _lines(find_file(draw, folder)))
    elif isinstance(draw, Mapping):
        yield from _leaves(draw, "")
    else:
        yield from ((value, 1.0) for value in draw)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _leaves(table: Mapping[str, Any], above: str) -> Iterator[tuple[str, float]]:
    """The leaves of a taxonomy, named by their way from the root. A branch weighs as much as its leaves together."""
    for name, value in table.items():
        path = f"{above} / {name}" if above else name
        if isinstance(value, Mapping):
            yield from _leaves(value, path)
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
            raise ValueError(f"{path!r} needs a weight of 0 or more, not {value!r}")
        else:
            yield path, float(value)


def drawn(choices: Mapping[str, Choices], rng: Random) -> dict[str, str]:
    """One value of each, independently: draws are crossed."""
    return {name: options.draw(rng) for name, options in choices.items()}


def in_words(values: Mapping[str, str], leave_out: Collection[str] = ()) -> str:
    """What is drawn as lines of a prompt, without what it says already."""
    said = {name: value for name, value in values.items() if name not in leave_out}
    return "\n".join(f"{name.replace('_', ' ').capitalize()}: {value}" for name, value in said.items())
