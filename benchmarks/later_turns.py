"""How the requests for later turns of the recipe `conversations` distribute, as a table of benchmarks/family-details.md. The
control is the draw of before, in which two turns of a conversation could start from the same part of an answer.

python -m benchmarks.later_turns [--seeds 7 8 9]
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from random import Random
from statistics import fmean

from agents.planning.seeds import RunSeeds
from benchmarks.decision_requests import print_table_of_seeds
from core.weights.embeddings import embed_texts
from filters.collapse.diversity import vendi_score
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.conversations.family import MOVES, STARTS

PLANNED = 300
LATER = re.compile(r"^Turn \d+, in which the user (.*); starts from (.*):$", re.MULTILINE)
Form = tuple[str, str]


def format_table(numbers: Sequence[int]) -> str:
    plans = [load_recipe_plan("conversations", [f"samples={PLANNED}", f"seed={number}"]) for number in numbers]
    drawn = [[LATER.findall(seed.data["instruction"]) for seed in RunSeeds(plan, "0" * 64)[:]] for plan in plans]
    before = [
        [list(zip(rng.sample(MOVES, len(forms)), rng.choices(STARTS, k=len(forms)), strict=True)) for forms in some]
        for some, rng in zip(drawn, map(Random, numbers), strict=True)
    ]
    lines = ["| of the requests for later turns | now | before |", "|---|---:|---:|"]
    for name, measure in (
        ("number", lambda some: len([*chain(*some)])),
        ("different", lambda some: len({*chain(*some)})),
        ("share of the ten most frequent, %", lambda some: 100 * share_of_ten([*chain(*some)])),
        ("effective number", lambda some: measure_vendi([*chain(*some)])),
        ("conversations with a move or part twice", lambda some: sum(map(has_twice, some))),
    ):
        means = [f"{fmean(measure(some) for some in arm):.1f}" for arm in (drawn, before)]
        lines.append(f"| {name} | {' | '.join(means)} |")
    return "\n".join(lines)


def share_of_ten(forms: Sequence[Form]) -> float:
    return sum(count for _, count in Counter(forms).most_common(10)) / len(forms)


def measure_vendi(forms: Sequence[Form]) -> float:
    return vendi_score(embed_texts([f"{move}; starts from {start}" for move, start in forms]))


def has_twice(forms: Sequence[Form]) -> bool:
    return any(len(set(some)) < len(some) for some in zip(*forms, strict=True))


if __name__ == "__main__":
    print_table_of_seeds(str(__doc__), PLANNED, format_table)
