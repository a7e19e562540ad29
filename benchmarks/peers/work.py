"""The work that every pipeline does: a draft, a critique of it, a check by code. What it costs is counted here too.

Imported by the drivers, each in its own environment: needs nothing but pydantic.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

WRITER = "You write short, clear and true answers about the topic, and you follow every rule in the request."
CRITIC = (
    'You review one answer to a request. Score it from 1 (poor) to 5 (good) by each rubric:\n"sense": every sentence is '
    'true, clear and says something. "style": it reads like a careful person wrote it.\nName each fault in a few words, '
    "and advise in one sentence what to change."
)
DRAFT_PROMPT = "Write about {topic}. Use at most 40 words."
REVIEW_PROMPT = "Request: Write about {topic}.\nAnswer: {answer}"


class Draft(BaseModel):
    answer: str


class Review(BaseModel):
    scores: dict[str, int]
    faults: list[str]
    advice: str


class PeerTask(NamedTuple):
    """What a driver is told on its command line."""

    url: str
    seeds: Path
    topics: list[str]
    concurrency: int
    """Requests that may be in flight at once."""
    out: Path
    """Where it keeps what a pipeline keeps; the same at a resumption."""


class PeerResult(NamedTuple):
    """What a pipeline left: all rows of its output, with whatever stands in them."""

    rows: Iterable[tuple[str, Any]]
    """Topic and answer of each row."""
    told: int = 0
    """Rows that it says it lost, in a file or a count that a program can read."""


def is_right(topic: str, answer: Any) -> bool:
    """The check by code: a finished text that has the topic's word."""
    return isinstance(answer, str) and topic in answer.lower() and bool(re.search(r"[.!?]$", answer.strip()))


def run_driver(pipeline: Callable[[PeerTask], PeerResult], version: str) -> None:
    """Do the task that the command line names; print one JSON line."""
    task = _parse_task()
    began = time.perf_counter()
    result = pipeline(task)
    rows = list(result.rows)
    right, wrong = count_right(rows, task.topics)
    line = {
        "rows": len(rows),
        "right": right,
        "wrong": wrong,
        "told": result.told,
        "wall": time.perf_counter() - began,
        "version": version,
    }
    sys.stdout.write(f"\n{json.dumps(line)}\n")


def count_right(rows: Iterable[tuple[str, Any]], topics: Sequence[str]) -> tuple[int, int]:
    """How many rows pass the check, no more for a topic than it was asked for, and how many look whole and do not."""
    left = Counter(topics)
    right = wrong = 0
    for topic, answer in rows:
        if not isinstance(answer, str):
            continue
        if is_right(topic, answer) and left[topic] > 0:
            left[topic] -= 1
            right += 1
        else:
            wrong += 1
    return right, wrong


def _parse_task() -> PeerTask:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="", help="of the endpoint, up to and with /v1")
    parser.add_argument("--seeds", type=Path, required=True, help="JSONL with a `topic` a line, one sample each")
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    lines = told.seeds.read_text(encoding="utf-8").splitlines()[: told.samples]
    told.out.mkdir(parents=True, exist_ok=True)
    return PeerTask(told.url, told.seeds, [json.loads(line)["topic"] for line in lines], told.concurrency, told.out)
