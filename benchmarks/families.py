"""What the embedded teacher can do of each recipe family: first drafts, held to every check that asks nobody."""

import argparse
import asyncio
import json
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from agents.calls.agent_context import open_scratch_context
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import produce_samples
from core.sample import Sample, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan

RECIPES = ("constrained-instructions", "conversations", "preference-pairs", "instructions", "reasoning", "arithmetic",
           "grounded-qa", "code", "extraction")  # fmt: skip
TRIES = 10
TEACHER = "teachers.main={model='local/smollm2-135m',max_concurrent=4,slot_tokens=4096,timeout_seconds=900}"


class FamilyYield(NamedTuple):
    recipe: str
    kept: int
    tried: int
    why: dict[str, int]
    """Of those that were not kept: which check, or `contract` where the reply was no draft at all."""


def build_plan(recipe: str, tries: int) -> RunPlan:
    """The recipe with the embedded teacher, one try a sample, and the checks that need no judge."""
    settings = [f"samples={tries}", "keep=0", TEACHER, "agents.critic=false", "topology.max_revisions=0"]
    plan = load_recipe_plan(recipe, [*settings, "agents.generator.max_tokens=400"])
    silent = [
        bound.config.model_dump_json(exclude_none=True) for bound in plan.checks if not bound.check.calls(bound.options)
    ]
    tables = ",".join(_format_toml(json.loads(one)) for one in silent)
    return load_recipe_plan(recipe, [*settings, "agents.generator.max_tokens=400", f"verifiers=[{tables}]"])


def _format_toml(value: object) -> str:
    """A JSON value as one in TOML, in a line."""
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(key)}={_format_toml(inner)}" for key, inner in value.items() if inner is not None)
            + "}"
        )
    return "[" + ",".join(map(_format_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


async def generate_first_drafts(recipe: str, tries: int) -> list[Sample]:
    made: list[Sample] = []
    plan = build_plan(recipe, tries)
    async with open_scratch_context(plan, threading.Event()) as crew:
        await produce_samples(crew, RunSeeds(plan, "bench000"), made.append)
    return sorted(made, key=lambda sample: sample.id)


def count_yield(recipe: str, samples: list[Sample]) -> FamilyYield:
    why = Counter(
        sample.detail if sample.state == SampleStatus.dropped else "contract" for sample in samples if sample.reason
    )
    return FamilyYield(
        recipe, sum(s.state == SampleStatus.kept for s in samples), len(samples), dict(why.most_common())
    )


def table(tries: int = TRIES, recipes: tuple[str, ...] = RECIPES, samples_to: Path | None = None) -> str:
    lines = [
        f"SmolLM2-135M, 4 bit; {tries} first drafts of each recipe, no critic, no revision, the checks without a teacher.",
        "",
        "| recipe | kept | of | not kept, for |",
        "|---|---:|---:|---|",
    ]
    for recipe in recipes:
        samples = asyncio.run(generate_first_drafts(recipe, tries))
        found = count_yield(recipe, samples)
        why = ", ".join(f"{name} {count}" for name, count in found.why.items())
        lines.append(f"| `{recipe}` | {found.kept} | {found.tried} | {why} |")
        sys.stderr.write(f"{lines[-1]}\n")
        if samples_to:
            with samples_to.open("a", encoding="utf-8") as file:
                file.writelines(f"{sample.model_dump_json()}\n" for sample in samples)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=TRIES)
    parser.add_argument("--recipes", type=lambda text: tuple(text.split(",")), default=RECIPES)
    parser.add_argument("--samples-to", type=Path, help="a JSONL file that gets every sample")
    told = parser.parse_args()
    sys.stdout.write(f"{table(told.tries, told.recipes, told.samples_to)}\n")


if __name__ == "__main__":
    main()
