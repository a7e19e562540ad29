"""The scenarios of the shipped recipes with tools, crossed by weight from taxonomies: who asks, why, and with which tools.

    python data/seeds/make_tool_scenarios.py simulated > data/seeds/tool_scenarios.jsonl
    python data/seeds/make_tool_scenarios.py library > data/seeds/library_tasks.jsonl

A line is a seed. Kinds of turns, worlds, things, registers and lengths are drawn later, for each sample.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from plugins.tools.simulation.conversation_plan import TOOL_CHAINS
from plugins.tools.simulation.simulated_tools import SIMULATED_TOOLS
from plugins.tools.simulation.simulated_world import DOMAINS, Domain

COUNTS = {"simulated": 400, "library": 400}
"""Of distinct lines."""
TOOLS_PER_SCENARIO = (3, 4, 5)
LIBRARY_VISITORS = (
    "a parent of two", "a retired engineer", "a student of history", "a night nurse", "a bus driver", "a primary school teacher",
    "a newcomer to the town", "a crime novel fan", "a grandfather", "a book club's organiser", "a shop assistant",
    "a cook on a break",
    "a teenager", "a translator", "a gardener", "a sailor on leave", "a librarian from another town", "a painter",
    "an apprentice",
    "a musician on tour", "a neighbour of the library", "a carer of an elderly aunt", "a choir singer", "a commuter",
)  # fmt: skip
LIBRARY_GOALS: Sequence[tuple[str, tuple[str, ...], float]] = (
    ("asks whether the library has a certain book", ("find_book",), 2),
    ("wants to know on which shelf a book is", ("find_book",), 2),
    ("wants to know how many copies of a book are in", ("find_book",), 2),
    ("wants to know who wrote a book", ("find_book",), 1),
    ("compares the copies of two books", ("find_book",), 1.5),
    ("borrows a book for two weeks", ("lend_book",), 2),
    ("borrows a book for one week only", ("lend_book",), 1.5),
    ("borrows a book for the longest time", ("lend_book",), 1.5),
    ("borrows two books at once on one card", ("lend_book",), 1.5),
    ("looks up a book and borrows it if a copy is in", ("find_book", "lend_book"), 2),
    ("borrows a book and asks what is on the card then", ("lend_book", "list_loans"), 1.5),
    ("asks which books are lent on a card", ("list_loans",), 2),
    ("checks two cards of the family", ("list_loans",), 1),
    ("asks what a late fee in euros is in Swiss francs", ("convert_fee",), 1),
    ("asks what a fee of a few euros is in British pounds", ("convert_fee",), 1),
    ("asks what a replacement fee for a lost book is in US dollars", ("convert_fee",), 1),
    ("asks what a fee is in two other currencies", ("convert_fee",), 1),
    ("checks a card before borrowing another book", ("list_loans", "lend_book"), 1.5),
)
"""What they want of `data/tools/library.py`, the tools for it, and a weight."""


def cross_simulated(count: int) -> list[dict[str, Any]]:
    """Scenarios of the simulated tools: a domain, then a persona, a purpose and tools of it."""
    rng = Random("tool scenarios")
    weights = [domain.weight for domain in DOMAINS]
    return _draw_distinct(lambda: _draw_scenario(rng.choices(DOMAINS, weights)[0], rng), count, ("who", "why", "tools"))


def _draw_scenario(domain: Domain, rng: Random) -> dict[str, Any]:
    tools = draw_tools(domain, rng)
    return {
        "who": rng.choice(domain.personas),
        "why": rng.choice(domain.purposes),
        "domain": domain.name,
        "tools": tools,
    }


def draw_tools(domain: Domain, rng: Random) -> list[str]:
    """Tools of a domain by weight: two of which one works on the result of the other, one for two calls at once, others."""
    pairs = [pair for pair in TOOL_CHAINS if set(pair) <= domain.tools.keys()]
    weights = [domain.tools[first] * domain.tools[second] for first, second in pairs]
    chosen = dict.fromkeys(rng.choices(pairs, weights)[0])
    if not any(SIMULATED_TOOLS[name].label for name in chosen):  # for two calls at once
        chosen |= dict.fromkeys([name for name in domain.tools if SIMULATED_TOOLS[name].label][:1])
    count = min(rng.choice(TOOLS_PER_SCENARIO), len(domain.tools))
    while len(chosen) < count:
        rest = {name: weight for name, weight in domain.tools.items() if name not in chosen}
        chosen[rng.choices([*rest], [*rest.values()])[0]] = None
    return [name for name in SIMULATED_TOOLS if name in chosen]


def cross_library(count: int) -> list[dict[str, Any]]:
    """Scenarios of the library's tools: a visitor and a goal."""
    rng = Random("library tasks")
    weights = [weight for _, _, weight in LIBRARY_GOALS]

    def draw() -> dict[str, Any]:
        goal, tools, _ = rng.choices(LIBRARY_GOALS, weights)[0]
        return {"task": f"{rng.choice(LIBRARY_VISITORS)}, who {goal}", "tools": [*tools]}

    return _draw_distinct(draw, count, ("task",))


def _draw_distinct(draw: Callable[[], dict[str, Any]], count: int, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The first `count` rows that differ in `keys`."""
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < count:
        row = draw()
        rows.setdefault(json.dumps([row[key] for key in keys]), row)
    return [*rows.values()]


CROSSINGS: Mapping[str, Callable[[int], list[dict[str, Any]]]] = {
    "simulated": cross_simulated,
    "library": cross_library,
}


def scenario_lines(name: str) -> str:
    """The seeds file of a crossing."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in CROSSINGS[name](COUNTS[name]))


if __name__ == "__main__":
    sys.stdout.write(scenario_lines(sys.argv[1]))
