"""How hard a capable teacher's samples are for the embedded one: pass rates of its attempts at the recorded questions."""

import argparse
import asyncio
import sys
import threading
from collections import Counter
from pathlib import Path

from agents.calls.agent_context import open_scratch_context
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import produce_samples
from benchmarks.machine import describe_measurement
from core.project_files import PROJECT
from core.sample import RejectionReason, Sample
from core.storage.recording import read_recording
from flows.recipes.recipe_catalog import load_recipe_plan

RECORDINGS = PROJECT / "benchmarks" / "recordings" / "earlier"
ATTEMPTS = 5
CHECKS = {"reasoning": "verifiers=[{type='solved'}]", "arithmetic": "verifiers=[{type='expression'}]"}
"""Per recipe: the check that knows the right answer."""
WEAK = "teachers.weak={model='local/smollm2-135m',max_concurrent=4,slot_tokens=4096,timeout_seconds=900}"


def measure_difficulty(recipe: str, recording: Path, attempts: int = ATTEMPTS) -> list[Sample]:
    """The recorded samples of a recipe, each with the attempts of the embedded teacher."""
    settings = [
        f"seeds={{recording='{recording}'}}", f"teachers.main={{model='fake/replay:{recording}'}}", WEAK, CHECKS[recipe],
        f"difficulty={{teacher='weak',attempts={attempts},max_tokens=300}}", f"samples={len(read_recording(recording))}",
        "agents.critic=false", "topology.max_revisions=0",
    ]  # fmt: skip
    plan = load_recipe_plan(recipe, settings)
    samples: list[Sample] = []

    async def produce() -> None:
        async with open_scratch_context(plan, threading.Event()) as context:
            await produce_samples(context, RunSeeds(plan, "bench000")[:], samples.append)
            if context.dispatcher.stop_signal.reason:
                raise context.dispatcher.stop_signal.reason

    asyncio.run(produce())
    return sorted(samples, key=lambda sample: sample.id)


def format_row(recipe: str, samples: list[Sample], attempts: int) -> str:
    measured = [sample for sample in samples if sample.attempts]
    counts = Counter(sum(sample.attempts) for sample in measured)
    kinds = Counter(s.detail.partition(":")[0] for s in measured if s.reason is RejectionReason.difficulty)
    bins = " | ".join(str(counts[passed]) for passed in range(attempts + 1))
    return f"| {recipe} | {len(measured)} | {bins} | {kinds['too hard']} | {kinds['too easy']} |"


def table(recordings: Path = RECORDINGS, attempts: int = ATTEMPTS) -> str:
    rates = " | ".join(f"{passed}/{attempts}" for passed in range(attempts + 1))
    lines = [
        f"{describe_measurement()}. Command: `python -m benchmarks difficulty`.",
        "",
        f"SmolLM2-135M, 4 bit; {attempts} attempts at each question that a capable teacher's recorded sample has, at temperature "
        "0.7. Samples by the number of attempts that passed; 0.2 to 0.8 is kept by default.",
        "",
        f"| recipe | verified samples | {rates} | too hard | too easy |",
        f"|---|---:|{'---:|' * (attempts + 1)}---:|---:|",
    ]
    for recipe in CHECKS:
        samples = measure_difficulty(recipe, recordings / f"{recipe}.jsonl", attempts)
        lines.append(format_row(recipe, samples, attempts))
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=Path, default=RECORDINGS)
    parser.add_argument("--attempts", type=int, default=ATTEMPTS)
    options = parser.parse_args()
    sys.stdout.write(f"{table(options.recordings, options.attempts)}\n")
