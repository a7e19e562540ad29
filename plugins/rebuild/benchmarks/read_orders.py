"""The order test on planted cases: small students that read the file of held-out requests, and controls.

    python -m plugins.rebuild.benchmarks.read_orders

Each student has two layers of width 64, and learns to write requests from 300 others before it reads 40 of the test.
"""

import copy
import re
import sys
from collections.abc import Collection, Sequence
from itertools import islice
from random import Random

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agents.planning.seeds import RunSeeds
from agents.studies.held_out_evaluation import join_requests
from core.intervals import estimate_share
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.rebuild.held_out import LEVEL, ORDERS, build_scorer, compute_probability, rank_shards

REQUESTS, OTHERS, SIMULATED = 40, 300, 100_000
STUDENTS = range(100, 110)
ARMS = {
    "did not read it": ("", 0), "read it in another order, 16 times": ("shuffled", 16),
    "read its lines one by one, 16 times": ("lines", 16), "read it once": ("file", 1), "read it 4 times": ("file", 4),
    "read it 16 times": ("file", 16),
}  # fmt: skip
"""How a student read the requests, and how often. Declared, with all numbers here, before any training."""
WINDOW, STEP = 8, 4
"""Lines of a text that a student reads, and from one text to the next."""


def read_requests() -> list[str]:
    """Different ones, as the recipe draws them."""
    plan = load_recipe_plan("constrained-instructions", ["teachers={main={model='fake/writer'}}", "samples=4000"])
    seeds = RunSeeds(plan, "0" * 16)
    found = dict.fromkeys(join_requests(plan.family.questions(seed) or ()) for seed in islice(seeds, 2000))
    return [*found][: REQUESTS + OTHERS]


def train(student: LlamaForCausalLM, texts: Sequence[list[int]], epochs: int, rng: Random) -> None:
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    for _ in range(epochs):
        for text in rng.sample(texts, len(texts)):
            ids = torch.tensor([text])
            student(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def run_student(
    requests: Sequence[str], number: int, arms: Collection[tuple[str, int]] = tuple(ARMS.values())
) -> list[float]:
    """The p-value of each arm, of one student that reads a file in an order of its own."""
    rng = Random(number)
    torch.manual_seed(number)
    chosen = rng.sample(requests, len(requests))
    file, others = chosen[:REQUESTS], chosen[REQUESTS:]
    words = sorted({word for line in requests for word in re.findall(r"\w+|\W", line)} | {"\n"})
    places = {word: place for place, word in enumerate(words)}

    def encode(text: str) -> list[int]:
        return [places[word] for word in re.findall(r"\w+|\W", text)]

    def read(lines: Sequence[str], window: int, step: int) -> list[list[int]]:
        return [encode("\n".join(lines[at : at + window]) + "\n") for at in range(0, len(lines) - window + step, step)]

    student = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=1024,
        )
    )  # fmt: skip
    train(student, read(others, WINDOW, WINDOW), 4, rng)
    values = []
    for reading, epochs in arms:
        reader = copy.deepcopy(student)
        lines = rng.sample(file, len(file)) if reading == "shuffled" else file
        train(reader, read(lines, 1, 1) if reading == "lines" else read(lines, WINDOW, STEP), epochs, rng)
        values.append(compute_probability(rank_shards(file, build_scorer(reader, encode), str(number))))
    return values


def simulate_chance() -> int:
    """Alarms of `SIMULATED` tests with random ranks."""
    rng = Random(0)
    limits = [
        compute_probability([total // 8 + (place < total % 8) for place in range(8)]) for total in range(8 * ORDERS)
    ]
    return sum(limits[sum(rng.randrange(ORDERS) for _ in range(8))] <= LEVEL for _ in range(SIMULATED))


def measure_orders() -> None:
    requests = read_requests()
    sys.stdout.write(f"random ranks: {simulate_chance():,} of {SIMULATED:,} alarms\n")
    sys.stdout.write("| a student that | alarms at p = 0.01 (95 %) | median p |\n|---|---:|---:|\n")
    tried = [run_student(requests, number) for number in STUDENTS]
    for arm, found in zip(ARMS, zip(*tried, strict=True), strict=True):
        values = sorted(found)
        alarms = sum(value <= LEVEL for value in values)
        interval = estimate_share(alarms, len(STUDENTS))
        assert interval
        shown = interval.format(lambda value: f"{100 * value:.0f} %")
        sys.stdout.write(f"| {arm} | {alarms} of {len(STUDENTS)} ({shown}) | {values[len(STUDENTS) // 2]:.2g} |\n")


if __name__ == "__main__":
    measure_orders()
