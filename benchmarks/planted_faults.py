"""What critics and checks catch: recorded good drafts, half of them with one planted fault, through each recipe's pipeline.

python -m benchmarks.planted_faults [RECIPE ...]

`benchmarks/recordings/planted/RECIPE.jsonl` has the drafts and the replies of a capable critic and solver that did not know which
drafts have a fault, `RECIPE.faults.jsonl` the number, the kind and the words of each planted fault. A draft is caught if it is
sent back: by a check, by a quoted fault, or by a score under the minimum. Two controls: the critic's replies about other drafts,
and no critic.
"""

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from agents.studies.preview import preview_samples
from core.intervals import estimate_share
from core.project_files import PROJECT
from core.sample import Sample
from core.storage.recording import RecordedSample, read_recording
from flows.recipes.recipe_catalog import load_recipe_plan

PLANTED = PROJECT / "benchmarks" / "recordings" / "planted"
GOALS = "goal: at least 90 % of the planted faults caught, at most 5 % of the good drafts refused"


class PlantedFault(NamedTuple):
    number: int
    """Of the sample in the recording, from 0."""
    kind: str
    what: str


class CaughtFaults(NamedTuple):
    """One arm's result on one recipe."""

    by_checks: set[int]
    """Numbers of the samples whose first draft a check refused."""
    by_critic: set[int]
    reviews: int

    @property
    def refused(self) -> set[int]:
        return self.by_checks | self.by_critic


def read_planted_faults(recipe: str) -> list[PlantedFault]:
    lines = (PLANTED / f"{recipe}.faults.jsonl").read_text(encoding="utf-8").splitlines()
    return [PlantedFault(**json.loads(line)) for line in lines]


def judge_drafts(recipe: str, recorded: Sequence[RecordedSample], *settings: str) -> CaughtFaults:
    """Replay the recorded drafts and reviews through the recipe, with one revision, of which no draft is recorded."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{recipe}.jsonl"
        file.write_text("\n".join(sample.model_dump_json() for sample in recorded), encoding="utf-8")
        teacher = f"teachers.main={{model='fake/replay:{file}', max_concurrent=1}}"
        always = [teacher, f"seeds={{recording='{file}'}}", "topology.max_revisions=1", "cache_mb=0"]
        if any(reply.agent == "critic" for sample in recorded for reply in sample.replies):
            always.append("agents.critic={type='teacher'}")  # also where the recipe has none by default
        plan = load_recipe_plan(recipe, [*always, f"samples={len(recorded)}", "keep=0", *settings])
        samples = asyncio.run(preview_samples(plan, len(recorded), threading.Event())).samples
    critic = plan.recipe.agents.critic
    least = critic.min_score if critic else 0
    return CaughtFaults(
        {number for number, sample in enumerate(samples) if find_refusing_check(sample)},
        {number for number, sample in enumerate(samples) if is_refused_by_critic(sample, least)},
        sum(any(critique.revision == 0 for critique in sample.critiques) for sample in samples),
    )


def find_refusing_check(sample: Sample) -> str | None:
    return next((verdict.check for verdict in sample.verdicts if not verdict.revision and not verdict.passed), None)


def is_refused_by_critic(sample: Sample, least: int) -> bool:
    first = [critique for critique in sample.critiques if not critique.revision]
    return any(critique.quoted_faults or min(critique.scores.values()) < least for critique in first)


def swap_reviews(recorded: Sequence[RecordedSample]) -> list[RecordedSample]:
    """The same drafts, each with the critic's replies about the next one that has any."""
    reviews = [[reply for reply in sample.replies if reply.agent == "critic"] for sample in recorded]
    swapped = []
    for number, sample in enumerate(recorded):
        others = (reviews[(number + step) % len(recorded)] for step in range(1, len(recorded)))
        own = [reply for reply in sample.replies if reply.agent != "critic"]
        other = next(filter(None, others), []) if len(own) < len(sample.replies) else []
        moved = [reply.model_copy(update={"request": f"of another draft {number}"}) for reply in other]
        swapped.append(sample.model_copy(update={"replies": (*own, *moved)}))
    return swapped


def format_share(part: Iterable[int], whole: Sequence[int]) -> str:
    count = len(set(part) & set(whole))
    share = estimate_share(count, len(whole))
    return f"{count} of {len(whole)}" + (f", {share.format('{:.0%}'.format)}" if share else "")


def measure_recipe(recipe: str) -> tuple[list[str], Counter[str], Counter[str], tuple[int, int, int, int]]:
    """A row of the table, planted and caught faults by kind, and (caught, planted, false alarms, good drafts)."""
    recorded, faults = read_recording(PLANTED / f"{recipe}.jsonl"), read_planted_faults(recipe)
    planted = [fault.number for fault in faults]
    good = [number for number in range(len(recorded)) if number not in set(planted)]
    whole = judge_drafts(recipe, recorded)
    swapped = judge_drafts(recipe, swap_reviews(recorded))
    checks = judge_drafts(recipe, recorded, "agents.critic=false")
    row = [
        recipe,
        format_share(checks.refused, planted),
        format_share(whole.by_critic, [number for number in planted if number not in whole.by_checks]),
        format_share(whole.refused, planted),
        format_share(whole.refused, good),
        format_share(swapped.refused, planted),
    ]
    kinds = Counter(fault.kind for fault in faults)
    caught = Counter(fault.kind for fault in faults if fault.number in whole.refused)
    for fault in faults:
        if fault.number not in whole.refused:
            sys.stderr.write(f"{recipe} {fault.number}: not caught: {fault.kind}: {fault.what}\n")
    for number in sorted(whole.refused & set(good)):
        sys.stderr.write(f"{recipe} {number}: a good draft was refused\n")
    totals = (len(whole.refused & set(planted)), len(planted), len(whole.refused & set(good)), len(good))
    return row, kinds, caught, totals


HEADER = (
    "recipe", "caught by checks alone", "of the rest, by the critic", "together", "good drafts refused",
    "control: reviews of other drafts",
)  # fmt: skip


def list_planted_recipes() -> list[str]:
    return sorted(path.name.removesuffix(".faults.jsonl") for path in PLANTED.glob("*.faults.jsonl"))


def build_table(recipes: Sequence[str]) -> tuple[str, bool]:
    """The tables, and whether the goals are met over all recipes."""
    measured = [measure_recipe(recipe) for recipe in recipes]
    rows = [row for row, *_ in measured]
    caught, planted, alarms, good = (sum(column) for column in zip(*(totals for *_, totals in measured), strict=True))
    rows.append(
        [
            "**all**",
            "",
            "",
            f"**{caught} of {planted} ({caught / planted:.0%})**",
            f"**{alarms} of {good} ({alarms / good:.1%})**",
            "",
        ]
    )
    kinds = sum((kinds for _, kinds, _, _ in measured), Counter[str]())
    found = sum((found for _, _, found, _ in measured), Counter[str]())
    by_kind = [[kind, f"{found[kind]} of {count}"] for kind, count in kinds.most_common()]
    text = f"{format_table(HEADER, rows)}\n\n{format_table(('kind of fault', 'caught'), by_kind)}\n\n{GOALS}"
    return text, caught >= 0.9 * planted and alarms <= 0.05 * good


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table() -> str:
    return build_table(list_planted_recipes())[0]


def main() -> int:
    text, met = build_table(sys.argv[1:] or list_planted_recipes())
    sys.stdout.write(f"{text}\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
