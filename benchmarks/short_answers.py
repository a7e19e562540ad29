"""Whether answers to questions about an image are compared as answers: 40 pairs that models write for one answer, and 40 that
look alike and differ, twice. They were written down before the first run of each file. A review of a run with a capable model
named 21 of the first 80. The checks were mended on what each file showed, so its pairs are no test of what was mended after it.

python -m benchmarks.short_answers
"""

import json
import sys
from itertools import product
from typing import Any

from benchmarks.children import PROJECT
from plugins.pictures.families.short_answers import is_same_short_answer

GOLDEN = PROJECT / "plugins/pictures/tests/golden"
FILES = ("short_answers.jsonl", "more_short_answers.jsonl")


def list_wrong_pairs(file: str, *, equal: bool) -> tuple[int, list[str]]:
    """The number of pairs that are equal, or not, and those of them that are compared wrongly in either order."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in (GOLDEN / file).read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["equal"] is equal]
    wrong = []
    for row in rows:
        left, right = row["left"], row["right"]
        found = {is_same_short_answer(*pair, row["question"]) for pair in ((left, right), (right, left))}
        wrong += [] if found == {equal} else [f"{left} | {right}"]
    return len(rows), wrong


def format_measurement() -> str:
    lines = []
    for file, (name, equal) in product(FILES, (("equal", True), ("unequal", False))):
        number, wrong = list_wrong_pairs(file, equal=equal)
        missed = "; ".join(wrong) or "none"
        lines.append(f"{file}: {number - len(wrong)} of {number} {name} pairs are compared rightly; wrongly: {missed}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{format_measurement()}\n")
