"""The held-out requests of a run, and a test whether a model has read the file of them. Knows no recording.

The test is the sharded rank comparison of Oren et al. (2023, Proving test set contamination in black box language models, arXiv
2310.17623): the file's order was drawn at random, so a model that has not read it has no reason to prefer that order.
"""

import json
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from agents.planning.plan_building import build_plan
from core.config.recipe import Recipe
from core.errors import StoreError, UsageError
from core.runs.run_dir import RunDir
from core.runs.student_records import VALIDATION_REQUESTS
from core.sample import FrozenModel
from core.storage.atomic_files import read_json
from flows.data.curated_run import VALIDATION, extract_conversations
from flows.data.student_files import continue_lineage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ScoreOrders = Callable[[Sequence[Sequence[str]]], Sequence[float]]
"""The log-probability of each order of some lines."""
SHARD = 5
"""Requests that are read in a row."""
ORDERS = 25
"""Orders of a shard that are compared: the file's, and drawn ones, all different."""
LEVEL = 0.01
"""Probability of a false alarm, at most."""
FEWEST = 2 * SHARD
"""With one shard, p is at least 1 / `ORDERS`."""
BATCH = 5
"""Orders that a model reads at once: 500 tokens over 49,152 words take 500 MB."""
LONGEST = 2048
"""Tokens of a shard that a model reads, unless it reads fewer."""


class OrderTest(FrozenModel):
    release: str
    model: str
    requests: int
    """Those in whole shards."""
    ranks: tuple[int, ...]
    """By shard: the orders that the model finds at least as likely as the file's."""
    p: float

    @property
    def contaminated(self) -> bool:
        return self.p <= LEVEL


def list_held_out_requests(run: RunDir, recipe: Recipe) -> list[str]:
    """The user's turns of rows that no student of the run is trained on, and of what its evaluation asks, in random order. Of the
    `recipe`, teachers are not asked.

    Raises:
        RecipeError, UsageError, StoreError: if a file of the recipe, or an earlier release, cannot be read.
    """
    import polars as pl

    from agents.studies.held_out_evaluation import held_out_seeds, join_requests
    from flows.evaluate.student_evaluation import collect_used_requests

    rows = pl.read_parquet(run.own_rows_file).filter(pl.col("side") == VALIDATION)
    found = [*map(join_requests, extract_conversations(rows))]
    if recipe.student and recipe.student.evaluation:
        plan = continue_lineage(build_plan(recipe, run.read_recipe_folder()), run)
        number = recipe.student.evaluation.requests * (1 + recipe.student.chooses_weights)
        used, asked = collect_used_requests(run, plan, lambda _note: None), run.student / VALIDATION_REQUESTS
        if asked.is_file():  # a finished run got the table after its student
            used -= {*read_json(asked)}
        seeds = held_out_seeds(plan, number, used)
        found += (join_requests(plan.family.questions(seed) or ()) for seed in seeds)
    found = [*dict.fromkeys(filter(None, found))]
    Random(f"{run.read_manifest().digest}/held-out").shuffle(found)
    return found


def write_held_out_requests(path: Path, requests: Sequence[str]) -> None:
    """A line of JSON each: published, it is what the test asks about."""
    lines = (json.dumps({"request": request}, ensure_ascii=False) + "\n" for request in requests)
    path.write_text("".join(lines), encoding="utf-8")


def check_order(release: str, file: Path, model: Path) -> OrderTest:
    """Test the model in a folder, as transformers loads it, on a file of requests.

    Raises:
        UsageError: if there is no such model or file, or too few requests.
        StoreError: if the file cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {error.strerror}; get the release again") from None
    if len(lines) < FEWEST:
        raise UsageError(f"{release}: has {len(lines)} held-out requests; the test needs {FEWEST} or more")
    ranks = rank_shards(lines, load_scorer(model), release)
    return OrderTest(
        release=release, model=str(model), requests=SHARD * len(ranks), ranks=ranks, p=compute_probability(ranks)
    )


def rank_shards(lines: Sequence[str], score: ScoreOrders, seed: str) -> tuple[int, ...]:
    """`OrderTest.ranks`."""
    rng, ranks = Random(seed), []
    for start in range(0, len(lines) - SHARD + 1, SHARD):
        own, *others = permutations(lines[start : start + SHARD])
        values = score([own, *rng.sample(others, ORDERS - 1)])
        ranks.append(sum(value >= values[0] for value in values[1:]))
    return tuple(ranks)


def compute_probability(ranks: Sequence[int]) -> float:
    """That ranks which are uniform from 0 to `ORDERS` - 1 have this sum or a smaller one, exactly."""
    ways = [1]
    for _ in ranks:
        ways = [sum(ways[max(0, total - ORDERS + 1) : total + 1]) for total in range(len(ways) + ORDERS - 1)]
    return sum(ways[: sum(ranks) + 1]) / int(ORDERS ** len(ranks))


def load_scorer(model: Path) -> ScoreOrders:
    """Raises UsageError if the model cannot be read."""
    from students.distributed import select_device
    from students.gguf_export import read_student

    network, tokenizer = read_student(model)
    network.to(select_device())  # type: ignore[arg-type]
    return build_scorer(network, lambda text: list(tokenizer(text)["input_ids"]))


def build_scorer(network: "PreTrainedModel", encode: Callable[[str], list[int]]) -> ScoreOrders:
    import torch

    network.eval()  # type: ignore[no-untyped-call]
    longest = min(LONGEST, getattr(network.config, "max_position_embeddings", LONGEST))

    @torch.inference_mode()
    def score(orders: Sequence[Sequence[str]]) -> list[float]:
        values: list[float] = []
        for start in range(0, len(orders), BATCH):
            texts = ["\n".join(order) + "\n" for order in orders[start : start + BATCH]]
            encoded = [encode(text)[:longest] for text in texts]
            ids = torch.zeros(len(encoded), max(map(len, encoded)), dtype=torch.long, device=network.device)
            real = torch.zeros_like(ids)
            for row, one in enumerate(encoded):
                ids[row, : len(one)], real[row, : len(one)] = torch.tensor(one), 1
            logits = network(input_ids=ids, attention_mask=real).logits[:, :-1].float()
            chosen = logits.gather(-1, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)
            values += (chosen.double() * real[:, 1:]).sum(-1).tolist()
        return values

    return score


def format_order_test(found: OrderTest) -> str:
    what = (
        "has read the held-out requests" if found.contaminated else "does not prefer the order of the held-out requests"
    )
    first = found.ranks.count(0)
    return (
        f"{found.release}: {found.model} {what} (p = {found.p:.2g}: of {ORDERS} orders, the file's is the most likely in "
        f"{first} of {len(found.ranks)} parts; {found.requests} requests)"
    )
