"""The spread of a run's kept samples over what its seeds drew: reads the seeds of all finished samples. Knows no Prefect."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from core.config.recipe import Recipe
from core.runs.records import SpreadRecord
from core.runs.run_dir import RunDir
from core.sample import RejectionReason, parse_sample_index
from core.storage.sample_files import read_sample_columns

MAX_READ_SEEDS = 20_000
"""Seeds that are compared; of more, every second, third, and so on."""


def measure_run_spread(run: RunDir, recipe: Recipe, kept: Collection[str]) -> SpreadRecord | None:
    """The spread of the samples with the ids `kept` over the seeds of all finished samples. A seed is kept if any of its samples
    is: samples of one seed are no independent draws. Samples that only the goal of the recipe left over do not count.
    """
    from filters.collapse.within.spread import TriedSeed, measure_spread

    ids, surplus = set(kept), _read_surplus(run)
    every = max(1, -(-recipe.samples // recipe.answers_per_seed // MAX_READ_SEEDS))
    tried: dict[int, TriedSeed] = {}
    for index in run.shards():
        rows = read_sample_columns(run.shard_file(index), ("id", "seed"))
        for name, seed in rows.iter_rows():
            number = parse_sample_index(name) // recipe.answers_per_seed
            if number % every or name in surplus:
                continue
            if number not in tried:
                tried[number] = TriedSeed(json.loads(seed)["data"], kept=False)
            if name in ids:
                tried[number] = tried[number]._replace(kept=True)
    return measure_spread(list(tried.values()), recipe.quotas.by if recipe.quotas else None)


def read_kept_seeds(run: RunDir, kept: Sequence[str]) -> list[dict[str, Any]]:
    """What was drawn for each of the samples with the ids `kept`, in their order."""
    wanted, drawn = set(kept), dict[str, dict[str, Any]]()
    for index in run.shards():
        rows = read_sample_columns(run.shard_file(index), ("id", "seed"))
        drawn |= {name: json.loads(seed)["data"] for name, seed in rows.iter_rows() if name in wanted}
    return [drawn.get(name, {}) for name in kept]


def _read_surplus(run: RunDir) -> set[str]:
    """The ids of samples that passed everything when the recipe had enough."""
    surplus: set[str] = set()
    for index in run.shards():
        if (path := run.dropped_file(index)).exists():
            rows = read_sample_columns(path, ("id", "reason"))
            surplus.update(rows.filter(rows["reason"] == RejectionReason.surplus.value)["id"])
    return surplus
