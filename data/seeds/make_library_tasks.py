"""The tasks of the recipe `library-tools`, crossed by weight: who asks, and what for.

    python data/seeds/make_library_tasks.py > data/seeds/library_tasks.jsonl

A line is a seed. Kinds of turns, worlds, registers and lengths are drawn later, for each sample.
"""

import json
import sys
from collections.abc import Sequence
from random import Random
from typing import Any

COUNT = 400
"""Of distinct lines."""
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


def list_tasks() -> str:
    """The seeds file: the first lines that differ in their task."""
    rng = Random("library tasks")
    weights = [weight for _, _, weight in LIBRARY_GOALS]
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < COUNT:
        goal, tools, _ = rng.choices(LIBRARY_GOALS, weights)[0]
        task = f"{rng.choice(LIBRARY_VISITORS)}, who {goal}"
        rows.setdefault(task, {"task": task, "tools": [*tools]})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values())


if __name__ == "__main__":
    sys.stdout.write(list_tasks())
