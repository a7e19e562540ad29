"""What the embedded teacher can do of each recipe family: first drafts, held to every check that asks nobody."""

import argparse
import asyncio
import json
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from agents.plan import Plan
from agents.preview import scratch_crew
from agents.produce import Shard, produce
from agents.seeds import Seeds
from core.sample import Sample, State
from flows.recipes import load

RECIPES = ("constrained-instructions", "conversations", "preference-pairs", "instructions", "reasoning", "arithmetic",
           "grounded-qa", "code", "extraction", "tool-calls")  # fmt: skip
TRIES = 10
TEACHER = "teachers.main={model='local/smollm2-135m',max_concurrent=4,slot_tokens=4096,timeout_seconds=900}"


class FamilyYield(NamedTuple):
    recipe: str
    kept: int
    tried: int
    why: dict[str, int]
    """Of those that were not kept: which check, or `contract` where the reply was no draft at all."""


def plan_for(recipe: str, tries: int) -> Plan:
    """The recipe with the embedded teacher, one try a sample, and the checks that need no judge."""
    settings = [f"samples={tries}", "keep=0", TEACHER, "agents.critic=false", "topology.max_revisions=0"]
    plan = load(recipe, [*settings, "agents.generator.max_tokens=400"])
    silent = [
        bound.asked.model_dump_json(exclude_none=True) for bound in plan.checks if not bound.check.calls(bound.options)
    ]
    tables = ",".join(_toml(json.loads(one)) for one in silent)
    return load(recipe, [*settings, "agents.generator.max_tokens=400", f"verifiers=[{tables}]"])


def _toml(value: object) -> str:
    """A JSON value as one in TOML, in a line."""
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(key)}={_toml(inner)}" for key, inner in value.items() if inner is not None)
            + "}"
        )
    return "[" + ",".join(map(_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


async def first_drafts(recipe: str, tries: int) -> list[Sample]:
    made: list[Sample] = []
    plan = plan_for(recipe, tries)
    async with scratch_crew(plan, threading.Event()) as crew:
        await produce(Shard(crew, Seeds(plan, "bench000"), made.append))
    return sorted(made, key=lambda sample: sample.id)


def yield_of(recipe: str, samples: list[Sample]) -> FamilyYield:
    why = Counter(sample.detail if sample.state == State.dropped else "contract" for sample in samples if sample.reason)
    return FamilyYield(recipe, sum(s.state == State.kept for s in samples), len(samples), dict(why.most_common()))


def table(tries: int = TRIES, recipes: tuple[str, ...] = RECIPES, samples_to: Path | None = None) -> str:
    lines = [
        f"SmolLM2-135M, 4 bit; {tries} first drafts of each recipe, no critic, no revision, the checks that ask nobody.",
        "",
        "| recipe | kept | of | not kept, for |",
        "|---|---:|---:|---|",
    ]
    for recipe in recipes:
        samples = asyncio.run(first_drafts(recipe, tries))
        found = yield_of(recipe, samples)
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
