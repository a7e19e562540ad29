"""How many requests for written texts of the recipe `decisions` are alike, as a table of benchmarks/families.md.

python -m benchmarks.decision_requests [--seeds 7 8 9]
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.sources.conditions import format_conditions
from benchmarks.machine import describe_measurement
from core.sample import Seed
from core.weights.embeddings import embed_texts
from filters.collapse.diversity import vendi_score
from flows.recipes.recipe_catalog import load_recipe_plan

PLANNED, COMPARED = 500, 200
"""Requests that are counted, and of these the first ones whose variety is measured."""
SCENES: Mapping[str, Sequence[str] | None] = {
    "answers and case alone (control)": (),
    "and the form": ("form",),
    "and topic": ("form", "topic"),
    "and persona, situation": ("form", "topic", "persona", "situation"),
    "all that is drawn": None,
}
"""What of a scene is in the request, by the name of its row; None for everything."""


class RequestVariety(NamedTuple):
    shared: int
    """Requests that equal another one."""
    most: int
    """Copies of the most frequent one."""
    whole: float
    """Effective number (Vendi score of all-MiniLM-L6-v2) of `COMPARED` requests."""
    varied: float
    """The same without the wording of the questions, which all requests have."""


def format_request(plan: RunPlan, seed: Seed, names: Sequence[str] | None, *, with_wording: bool) -> str:
    request = plan.prompt("write").fill(plan.family.prompt_values(seed))[-1].content
    if not with_wording:
        for question in plan.options.questions:
            request = request.replace(question.wording, question.name)
    scene = {name: value for name, value in seed.conditions.items() if names is None or name in names}
    return f"{request}\n{format_conditions(scene)}".strip()


def measure_requests(settings: Sequence[str], names: Sequence[str] | None) -> RequestVariety:
    plan = load_recipe_plan("decisions", [f"samples={PLANNED}", *settings])
    seeds: list[Any] = RunSeeds(plan, "0" * 64)[:]
    whole, varied = (
        [format_request(plan, seed, names, with_wording=with_wording) for seed in seeds]
        for with_wording in (True, False)
    )
    counts = Counter(whole).values()
    scores = [vendi_score(embed_texts(texts[:COMPARED])) for texts in (whole, varied)]
    return RequestVariety(sum(count for count in counts if count > 1), max(counts), *scores)


def format_table(seeds: Sequence[int]) -> str:
    lines = ["| in the request | shared | most copies | effective number | without the questions' words |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, scene in SCENES.items():
        found = [measure_requests([f"seed={seed}"], scene) for seed in seeds]
        shared = " / ".join(str(one.shared) for one in found)
        whole, varied = (fmean(values) for values in zip(*((one.whole, one.varied) for one in found), strict=True))
        lines.append(f"| {name} | {shared} | {max(one.most for one in found)} | {whole:.1f} | {varied:.1f} |")
    return "\n".join(lines)


def print_table_of_seeds(about: str, planned: int, format_table: Callable[[Sequence[int]], str]) -> None:
    """With the machine, and the seeds of the command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    seeds = parser.parse_args().seeds
    measured = f"{describe_measurement()}. {planned} requests each of seeds {', '.join(map(str, seeds))}."
    sys.stdout.write(f"{measured}\n\n{format_table(seeds)}\n")


if __name__ == "__main__":
    print_table_of_seeds(str(__doc__), PLANNED, format_table)
