"""How varied the requests of the recipe `instructions` are, as a table of benchmarks/families.md.

python -m benchmarks.task_requests [--seeds 7 8 9]
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from agents.planning.seeds import RunSeeds
from benchmarks.decision_requests import print_table_of_seeds
from core.sample import Seed
from core.weights.embeddings import embed_texts
from filters.collapse.diversity import vendi_score
from flows.recipes.recipe_catalog import load_recipe_plan

PLANNED = 200
PARTS: Mapping[str, Sequence[str]] = {
    "kind": ("Kind",),
    "kind, form, length, system message, turns": (
        "Kind", "Programming language", "Length of the task", "Form of the answer", "Length of the answer", "System message",
        "Turn 2 of the user", "Turn 3 of the user", "Turn 4 of the user",
    ),
    "and field, opening": ("Field", "Opening"),
    "and asker, situation": ("Asker", "Situation"),
}  # fmt: skip
"""What of a request is compared, by the name of its row; rows with `and` have the parts of the row above too."""


def format_parts(seed: Seed, labels: Sequence[str]) -> str:
    """The drawn values under `labels`, without the labels, which all requests share. The kind of a derived task is its way."""
    drawn = {"Kind": seed.data["way"], **seed.conditions}
    return "\n".join(drawn[label] for label in labels if label in drawn)


def format_table(numbers: Sequence[int]) -> str:
    plans = [load_recipe_plan("instructions", [f"samples={PLANNED}", f"seed={number}"]) for number in numbers]
    runs = [list(RunSeeds(plan, "0" * 64)[:]) for plan in plans]
    lines, labels = ["| of the request | different ones | effective number |", "|---|---:|---:|"], list[str]()
    for name, more in PARTS.items():
        labels = [*labels, *more] if name.startswith("and") else list(more)
        texts = [[format_parts(seed, labels) for seed in seeds] for seeds in runs]
        different = fmean(len(set(some)) for some in texts)
        lines.append(f"| {name} | {different:.0f} | {fmean(vendi_score(embed_texts(some)) for some in texts):.1f} |")
    for label in ("Length of the answer", "Form of the answer"):
        counts = Counter(seed.conditions.get(label, "none") for seeds in runs for seed in seeds)
        lines.append(
            f"\n{label}: " + ", ".join(f"{value} {100 * n / counts.total():.1f} %" for value, n in counts.most_common())
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print_table_of_seeds(str(__doc__), PLANNED, format_table)
