"""How near a student's decoding comes to the machine's memory and arithmetic, by answers at once, and what a million tokens cost.

python -m benchmarks.decoding_roof STUDENT.gguf [--rounds 5] [--seconds 4]

A step decodes one token of each answer. It reads all weights once, and each answer's KV cache: the roof of memory. It
multiplies each weight once for each answer: the roof of arithmetic. All rates are per second of the CPU of one thread, so that
they hold on a shared machine too.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import NamedTuple

import gguf
import numpy as np
import torch

from benchmarks.busy import open_session, wait_until_idle
from benchmarks.decoding_speed import post_json
from benchmarks.machine import describe_measurement
from benchmarks.read_bandwidth import CACHES_PER_BUFFER, LEAST_BYTES, PASSES, find_last_level_cache
from core.runs.run_dir import collect_versions
from teachers.local_llama import LlamaServer, llama_settings, run_llama_server

SLOTS = (1, 4, 8, 16)
ROUNDS, SECONDS = 5, 4.0
SLOT_TOKENS = 1024
PROMPT = "The bees left their hive early in the morning and flew over the wide green fields. "
READ_TOKENS = 512
"""Of a prompt, which llama.cpp reads in one matrix product per layer."""
PRICE_PER_CORE_HOUR = 0.04
"""In any currency; an assumption."""
SIDE, PRODUCTS = 2048, 10
"""The matrices whose product is timed, and how often: the fastest counts."""
CACHE_BYTES = 2
"""Of a number in the KV cache, f16."""

logger = logging.getLogger("stillhouse")


class StudentSize(NamedTuple):
    """What decoding reads and multiplies."""

    weights: int
    """Bytes."""
    parameters: int
    """In matrices."""
    cache: int
    """Bytes of the KV cache per token."""


class Turn(NamedTuple):
    """One measurement."""

    rate: float
    """Tokens of all answers per second of the server's CPU."""
    position: float
    """Mean position of the decoded tokens."""


class Roofs(NamedTuple):
    bytes_per_second: float
    flops: float
    """Of float32 matrix products."""
    read_rate: float
    """Tokens per second of a prompt that llama.cpp reads with these weights: its own matrix products at their best."""


def read_student_size(path: Path) -> StudentSize:
    """Of a model with tied embeddings, as the demo's student: the output layer reads the matrix of the embeddings."""
    reader = gguf.GGUFReader(path)
    fields = {key.partition(".")[2]: field.contents() for key, field in reader.fields.items()}
    heads = fields["attention.head_count_kv"]
    width = fields["embedding_length"] // fields["attention.head_count"]
    matrices = [tensor for tensor in reader.tensors if len(tensor.shape) > 1]
    return StudentSize(
        weights=sum(int(tensor.n_bytes) for tensor in reader.tensors),
        parameters=sum(int(tensor.n_elements) for tensor in matrices),
        cache=2 * CACHE_BYTES * fields["block_count"] * heads * width,
    )


def measure_flops() -> float:
    """FLOP/s of the fastest product of two square float32 matrices on one core; one has 2 n³ operations."""
    torch.set_num_threads(1)
    left, right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    seconds = []
    for _ in range(PRODUCTS):
        began = process_time()
        left @ right
        seconds.append(process_time() - began)
    return 2 * SIDE**3 / min(seconds)


def measure_read_bandwidth() -> float:
    """Bytes per second of CPU that one core reads from a buffer that no cache holds: the fastest pass."""
    buffer = np.ones(max(LEAST_BYTES, CACHES_PER_BUFFER * (find_last_level_cache() or 0)), np.uint8)
    seconds = []
    for _ in range(PASSES):
        began = thread_time()
        buffer.max()  # the fastest reduction of NumPy
        seconds.append(thread_time() - began)
    return len(buffer) / min(seconds)


def read_cpu_seconds(server: LlamaServer) -> float:
    """User and system."""
    assert server.loaded, "it has started"
    user, system = Path(f"/proc/{server.loaded.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def measure_turn(server: LlamaServer, slots: int, number: int, seconds: float) -> Turn:
    """Counts from the first token of the last answer on, so that no prompt is read meanwhile."""
    end = perf_counter() + seconds
    answers = await asyncio.gather(*(_time_tokens(server, f"{number} {slot} {PROMPT}", end) for slot in range(slots)))
    spent = read_cpu_seconds(server)
    first, spent_before = max((times[0], cpu) for times, cpu in answers)
    decoded = sum(time > first for times, _ in answers for time in times)
    before = sum(len(times) for times, _ in answers) - decoded
    prompt = len((await post_json(server.server, "tokenize", {"content": f"{number} 0 {PROMPT}"}))["tokens"])
    position = prompt + (before + decoded / 2) / slots
    return Turn(decoded / (spent - spent_before), position)


async def _time_tokens(server: LlamaServer, prompt: str, end: float) -> tuple[list[float], float]:
    """When each token of an answer came, until `end`, when it is broken off; and the server's CPU seconds at the first."""
    body = {"prompt": prompt, "n_predict": SLOT_TOKENS - 64, "temperature": 0, "ignore_eos": True, "stream": True}
    times: list[float] = []
    spent = 0.0
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(end - perf_counter()),
            open_session(server) as session,
            session.post("/completion", json=body) as response,
        ):
            async for line in response.content:
                if line.startswith(b"data:"):
                    spent = spent or read_cpu_seconds(server)
                    times.append(perf_counter())
    if not times:
        raise RuntimeError("no token came in a turn: the machine is too busy, or --seconds is too short")
    return times, spent


async def measure_student(path: Path, rounds: int, seconds: float) -> tuple[dict[int, list[Turn]], Roofs]:
    """The turns by answers at once, in an order that changes; and the roofs, measured between the rounds: the highest count."""
    settings = llama_settings(str(path.resolve()), max(SLOTS), SLOT_TOKENS, threads=1)
    turns: dict[int, list[Turn]] = {slots: [] for slots in SLOTS}
    roofs = []
    async with run_llama_server(str(path), settings, logger.info, 600) as server:
        await post_json(server.server, "completion", {"prompt": PROMPT, "n_predict": 8})  # reads the file
        for number in range(rounds):
            first = number % len(SLOTS)
            for slots in SLOTS[first:] + SLOTS[:first]:
                turns[slots].append(await measure_turn(server, slots, number, seconds))
                await wait_until_idle(server)
            body = {"prompt": [1000 + number, *range(1100, 1099 + READ_TOKENS)], "n_predict": 1, "cache_prompt": False}
            spent = read_cpu_seconds(server)
            await post_json(server.server, "completion", body)
            read_rate = READ_TOKENS / (read_cpu_seconds(server) - spent)
            roofs.append(Roofs(measure_read_bandwidth(), measure_flops(), read_rate))
    return turns, Roofs(*(max(values) for values in zip(*roofs, strict=True)))


def format_page(path: Path, turns: dict[int, list[Turn]], roofs: Roofs) -> str:
    size = read_student_size(path)
    by_arithmetic = roofs.flops / (2 * size.parameters)
    rows = [_format_row(slots, found, size, roofs, by_arithmetic) for slots, found in turns.items()]
    return "\n".join([
        f"{describe_measurement()}, load {os.getloadavg()[0]:.0f}; xllamacpp {collect_versions().get('xllamacpp')}. Command: "
        "`python -m benchmarks.decoding_roof STUDENT.gguf`.",
        "",
        f"`{path.name}`: {size.parameters / 1e6:.1f}M parameters, {size.weights / 1e6:.0f} MB of weights, "
        f"{size.cache / 1000:.1f} kB of KV cache a token. {len(next(iter(turns.values())))} turns in changing order, "
        "counted once every prompt is read: medians (least to most), per second of the server's CPU with one thread. "
        "A step reads all weights once and each answer's cache; "
        f"a core reads memory at {roofs.bytes_per_second / 1e9:.1f} GB/s, the roof of memory. "
        f"Its float32 matrix products make {roofs.flops / 1e9:.0f} GFLOP/s, enough for {by_arithmetic:,.0f} tokens/s; "
        f"llama.cpp reads a prompt of {READ_TOKENS} tokens, in int8, at {roofs.read_rate:,.0f} tokens/s. "
        f"Price: an assumed {PRICE_PER_CORE_HOUR:g} a core-hour.",
        "",
        "| answers at once | tokens/s a core | roof of memory | share | of float32 products "
        "| of reading a prompt | a million tokens |",
        "|---:|---:|---:|---:|---:|---:|---:|",
        *rows,
    ])  # fmt: skip


def _format_row(slots: int, found: Sequence[Turn], size: StudentSize, roofs: Roofs, by_arithmetic: float) -> str:
    rates = [turn.rate for turn in found]
    rate = median(rates)
    position = median(turn.position for turn in found)
    by_memory = slots * roofs.bytes_per_second / (size.weights + slots * position * size.cache)
    price = PRICE_PER_CORE_HOUR / 3600 / rate * 1e6
    return (
        f"| {slots} | {rate:.0f} ({min(rates):.0f} to {max(rates):.0f}) | {by_memory:,.0f} "
        f"| {rate / by_memory:.0%} | {rate / by_arithmetic:.0%} | {rate / roofs.read_rate:.0%} | {price:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of one turn")
    options = parser.parse_args()
    turns, roofs = asyncio.run(measure_student(options.student, options.rounds, options.seconds))
    sys.stdout.write(format_page(options.student, turns, roofs) + "\n")


if __name__ == "__main__":
    main()
