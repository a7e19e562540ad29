"""What the embedded teacher can do: which constraints it keeps to, and whether it can judge its own answers."""

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from agents.contract import ContractFault, Review
from agents.crew import read_reply
from agents.families.constraints import KINDS
from agents.plan import Plan
from agents.preview import scratch_crew
from agents.produce import Shard, produce
from agents.seeds import Seeds
from agents.teachers.base import Ask
from benchmarks.machine import measured_on
from core.recipe import CriticConfig
from core.run import versions
from core.sample import Sample, State
from flows.recipes import load

TRIES = 8
JUDGED = Path(__file__).with_name("judged_answers.jsonl")


class KindYield(NamedTuple):
    kind: str
    kept: int
    tried: int


async def yields() -> list[KindYield]:
    """First drafts that keep to one constraint of each kind, without critic, revision or other checks."""
    found = []
    base = [
        "agents.critic=false",
        "topology.max_revisions=0",
        'verifiers=[{type="constraints"}]',
        "keep=0",
        f"samples={TRIES}",
    ]
    plans = {
        kind: load("constrained-instructions", [*base, f"task={{constraints=[1],kinds={{{kind}=1}}}}"])
        for kind in KINDS
    }
    async with scratch_crew(next(iter(plans.values())), threading.Event()) as crew:
        for kind, plan in plans.items():
            samples: list[Sample] = []
            seeds = Seeds(plan, "bench000")
            await produce(Shard(replace(crew, plan=plan), seeds, samples.append))
            found.append(KindYield(kind, sum(sample.state == State.kept for sample in samples), TRIES))
    return sorted(found, key=lambda row: (-row.kept, row.kind))


class Judged(NamedTuple):
    instruction: str
    answer: str
    confidence: float
    """The geometric-mean token probability when it was written."""
    good: bool
    """Whether it makes sense, as judged by eye."""


def judged_answers() -> list[Judged]:
    return [Judged(**json.loads(line)) for line in JUDGED.read_text(encoding="utf-8").splitlines()]


def area_under_roc(scores: Sequence[float], good: Sequence[bool]) -> float:
    """The chance that a good answer scores above a poor one, ties counting half (Mann and Whitney 1947)."""
    above = [score for score, is_good in zip(scores, good, strict=True) if is_good]
    below = [score for score, is_good in zip(scores, good, strict=True) if not is_good]
    return sum((a > b) + (a == b) / 2 for a in above for b in below) / (len(above) * len(below))


async def rubric_scores(plan: Plan, rows: Sequence[Judged]) -> list[float]:
    """The sum of scores that the teacher gives each answer by the critic's prompt; the middle where its reply is broken."""
    config = CriticConfig(max_tokens=120)
    async with scratch_crew(plan, threading.Event()) as crew:

        async def one(index: int, row: Judged) -> float:
            messages = crew.prompt("critic", {"instruction": row.instruction, "answer": row.answer})
            ask = Ask(sample=index, agent="critic", revision=0, attempt=0)
            answer = await crew.ask(ask, config, messages, Review, 0.0)
            try:
                scores = read_reply(Review, answer.reply).scores
                return sum(scores.values()) / len(scores)
            except ContractFault:
                return 3.0

        return list(await asyncio.gather(*(one(i, row) for i, row in enumerate(rows))))


TABLE = """{measured_on}; {versions}.

SmolLM2-135M, 4 bit, with the examples of the default recipe; first drafts, one constraint each, no other check:

| kind | kept | of |
|---|---|---|
{yields}

Whether it can judge: {count} of its answers that had passed every check of an early version of the default recipe, {good}
of them judged good by eye (`judged_answers.jsonl`). The area under the ROC curve is the chance that a good one scores
above a poor one: .5 is chance. With so few, its standard error is about .06. The author made the labels, without seeing
scores; confidence was then picked on these same answers, so its number is likely to be a little too good.

| judge | area under the ROC curve |
|---|---|
| its confidence: the geometric mean of its token probabilities, as it wrote | {confidence:.2f} |
| itself, by the critic's prompt (scores by rubric, temperature 0) | {rubric:.2f} |
"""


def table() -> str:
    """Both measurements as Markdown."""
    rows = judged_answers()
    good = [row.good for row in rows]
    plan = load("constrained-instructions")
    return TABLE.format(
        measured_on=measured_on(),
        versions=", ".join(f"{name} {version}" for name, version in versions().items()),
        yields="\n".join(f"| `{kind}` | {kept} | {tried} |" for kind, kept, tried in asyncio.run(yields())),
        count=len(rows),
        good=sum(good),
        confidence=area_under_roc([row.confidence for row in rows], good),
        rubric=area_under_roc(asyncio.run(rubric_scores(plan, rows)), good),
    )
