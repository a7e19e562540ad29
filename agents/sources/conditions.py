"""Conditions: values drawn by weight for each sample in addition to its seed, such as a persona or a category of a taxonomy.

Knows no family: a condition is a name and a text.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import accumulate
from math import inf
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from core.config.recipe import ConditionValues
from core.errors import RecipeProblem
from core.project_files import find_referenced_file, read_shipped_table
from core.storage.bounded_reading import check_regular_file


class ConditionChoices(NamedTuple):
    """The values of one condition."""

    values: tuple[str, ...]
    upto: tuple[float, ...]
    """Cumulative weights of the values."""

    def draw(self, rng: Random) -> str:
        return rng.choices(self.values, cum_weights=self.upto)[0]


def load_conditions(
    draws: Mapping[str, ConditionValues], folder: Path
) -> tuple[dict[str, ConditionChoices], list[RecipeProblem]]:
    """The choices of a recipe in `folder`, by name, and their problems."""
    choices, problems = {}, []
    for name, draw in draws.items():
        where = f"seeds.draw.{name}"
        try:
            if isinstance(draw, str):
                weights = dict.fromkeys(_read_lines(find_referenced_file(draw, folder)), 1.0)
            elif isinstance(draw, Mapping):
                weights = dict(_taxonomy_leaves(draw, ""))
            else:
                weights = dict.fromkeys(draw, 1.0)
        except ValueError as error:
            problems.append(RecipeProblem(where, str(error)))
            continue
        if not weights or not sum(weights.values()):
            problems.append(RecipeProblem(where, "has nothing to draw; name at least one value with a weight above 0"))
        else:
            choices[name] = ConditionChoices(tuple(weights), tuple(accumulate(weights.values())))
    return choices, problems


def _read_lines(path: Path) -> list[str]:
    try:
        check_regular_file(path)
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _taxonomy_leaves(table: Mapping[str, Any], parent: str) -> Iterator[tuple[str, float]]:
    """The leaves of a taxonomy, each named by its path from the root. A branch has the weight of its leaves together."""
    for name, value in table.items():
        path = f"{parent} / {name}" if parent else name
        if isinstance(value, Mapping):
            yield from _taxonomy_leaves(value, path)
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
            raise ValueError(f"{path!r} needs a weight of 0 or more, not {value!r}")
        else:
            yield path, float(value)


def draw_conditions(choices: Mapping[str, ConditionChoices], rng: Random) -> dict[str, str]:
    """One value of each condition, drawn independently."""
    return {name: options.draw(rng) for name, options in choices.items()}


@cache
def _load_people() -> Mapping[str, Any]:
    people = read_shipped_table("data/seeds/people.toml")
    return {**people, **{key: people[key].split() for key in ("first_names", "last_names")}}


def draw_persona(rng: Random) -> str:
    """A name with an occupation and a manner, such as `Asha Kowal, a potter, who thinks aloud`."""
    banks = ("first_names", "last_names", "occupations", "manners")
    first, last, occupation, manner = (rng.choice(_load_people()[bank]) for bank in banks)
    return f"{first} {last}, {occupation}, {manner}"


def draw_situation(rng: Random) -> str:
    """Why somebody asks, such as `has to decide by tonight`."""
    situation: str = rng.choice(_load_people()["situations"])
    return situation


def format_conditions(values: Mapping[str, str], leave_out: Collection[str] = ()) -> str:
    """The conditions as lines of a prompt, without those that the prompt already places."""
    lines = {name: value for name, value in values.items() if name not in leave_out}
    return "\n".join(f"{name.replace('_', ' ').capitalize()}: {value}" for name, value in lines.items())
