"""CPU that one call takes in each protocol's client: ours for OpenAI's, the vendors' libraries for theirs.

python -m benchmarks.clients [--calls 1000] [--in-flight 32] [--rounds 5]
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.endpoint import Behaviour, serve_in_child
from benchmarks.machine import describe_measurement
from core.config.teachers import TeacherConfig
from core.sample import Message
from teachers.base import TeacherQuestion, UnlimitedAccount
from teachers.providers import open_teacher

CALLS, IN_FLIGHT, ROUNDS = 1000, 32, 5
WARMUP_CALLS = 50
CLIENTS = {
    "openai/m": "aiohttp",
    "anthropic/claude-opus-4-8": "anthropic",
    "gemini/gemini-2.5-flash": "google-genai",
}
"""The client of each model's protocol."""
SCHEMA = {
    "title": "Reply",
    "type": "object",
    "properties": {"answer": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["answer", "score"],
    "additionalProperties": False,
}
PROMPT = "Write about the tides of a lake, the moon above it, and the boats that wait for both. " * 20


async def measure_client(model: str, url: str, calls: int, in_flight: int) -> float:
    """Milliseconds of this process's CPU for a call."""
    base = url if model.startswith("openai/") else url.removesuffix("/v1")
    config = TeacherConfig(model=model, base_url=base, api_key_env="", max_concurrent=in_flight)
    async with open_teacher(config) as teacher:

        async def ask(number: int) -> None:
            question = TeacherQuestion(
                messages=[Message(role="system", content="Be brief."), Message(role="user", content=f"{number}. {PROMPT}")],
                contract="Reply", json_schema=SCHEMA, temperature=0.7, top_p=1.0, max_tokens=200, seed=number,
            )  # fmt: skip
            await teacher.reply(question, 0, UnlimitedAccount())

        await asyncio.gather(*map(ask, range(WARMUP_CALLS)))
        began = time.process_time()
        await asyncio.gather(*map(ask, range(calls)))
        return (time.process_time() - began) / calls * 1000


def table(calls: int = CALLS, in_flight: int = IN_FLIGHT, rounds: int = ROUNDS) -> str:
    """As Markdown."""
    spent: dict[str, list[float]] = {model: [] for model in CLIENTS}
    with tempfile.TemporaryDirectory() as folder, serve_in_child(Behaviour(), Path(folder) / "calls.jsonl") as url:
        for _ in range(rounds):
            for model in CLIENTS:
                spent[model].append(asyncio.run(measure_client(model, url, calls, in_flight)))
    least = median(spent["openai/m"])
    rows = [
        f"| `{model.partition('/')[0]}/…` | {client} | {median(spent[model]):.2f} ({min(spent[model]):.2f} to "
        f"{max(spent[model]):.2f}) | {median(spent[model]) / least:.1f} | {1000 / median(spent[model]):,.0f} |"
        for model, client in CLIENTS.items()
    ]
    head = (
        "CPU of one call in the process that asks: the request, its client, and the reply as a record. A prompt of "
        f"{len(PROMPT):,} characters and a reply schema; the endpoint is another process. {rounds} rounds in turn, "
        f"{calls:,} calls each, {in_flight} in flight. {describe_measurement()}, load {os.getloadavg()[0]:.0f}. "
        "Command: `python -m benchmarks clients`."
    )
    return "\n".join([
        head,
        "",
        "| teacher | client | ms a call: median (least to most) | relative | calls a second of one core |",
        "|---|---|---:|---:|---:|",
        *rows,
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    sys.stdout.write(table(options.calls, options.in_flight, options.rounds) + "\n")


if __name__ == "__main__":
    main()
