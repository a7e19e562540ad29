"""What the embedded teacher can do: which constraints it keeps to, and whether it can judge its own answers."""

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from agents.calls.agent_context import open_scratch_context
from agents.families.constraints import CONSTRAINT_KINDS
from agents.planning.rubrics import build_review_schema, check_rubrics
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.reply_schema import InvalidReply, Review, parse_reply
from agents.topologies.sample_production import produce_samples
from benchmarks.machine import describe_measurement
from core.config.agents import CriticConfig
from core.runs.run_dir import collect_versions
from core.sample import Sample, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import CallKey

TRIES = 8
JUDGED_FILE = Path(__file__).with_name("judged_answers.jsonl")


class KindYield(NamedTuple):
    kind: str
    kept: int
    tried: int


async def measure_yields() -> list[KindYield]:
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
        kind: load_recipe_plan("constrained-instructions", [*base, f"task={{constraints=[1],kinds={{{kind}=1}}}}"])
        for kind in CONSTRAINT_KINDS
    }
    async with open_scratch_context(next(iter(plans.values())), threading.Event()) as crew:
        for kind, plan in plans.items():
            samples: list[Sample] = []
            seeds = RunSeeds(plan, "bench000")
            await produce_samples(replace(crew, plan=plan), seeds, samples.append)
            found.append(KindYield(kind, sum(sample.state == SampleStatus.kept for sample in samples), TRIES))
    return sorted(found, key=lambda row: (-row.kept, row.kind))


class JudgedAnswer(NamedTuple):
    instruction: str
    answer: str
    confidence: float
    """The geometric-mean token probability when it was written."""
    good: bool
    """Whether it makes sense, as judged by eye."""


def read_judged_answers() -> list[JudgedAnswer]:
    return [JudgedAnswer(**json.loads(line)) for line in JUDGED_FILE.read_text(encoding="utf-8").splitlines()]


def area_under_roc(scores: Sequence[float], good: Sequence[bool]) -> float:
    """The chance that a good answer scores above a poor one, ties counting half (Mann and Whitney 1947)."""
    above = [score for score, is_good in zip(scores, good, strict=True) if is_good]
    below = [score for score, is_good in zip(scores, good, strict=True) if not is_good]
    return sum((a > b) + (a == b) / 2 for a in above for b in below) / (len(above) * len(below))


async def score_by_rubrics(plan: RunPlan, rows: Sequence[JudgedAnswer]) -> list[float]:
    """The sum of scores that the teacher gives each answer by the critic's prompt; the middle where its reply is broken."""
    config = CriticConfig(max_tokens=120)
    async with open_scratch_context(plan, threading.Event()) as crew:

        async def one(index: int, row: JudgedAnswer) -> float:
            messages = crew.prompt("critic", {"instruction": row.instruction, "answer": row.answer})
            ask = CallKey(sample=index, agent="critic", revision=0, attempt=0)
            answer = await crew.ask(ask, config, messages, Review, 0.0, build_review_schema(plan.rubrics))
            try:
                review = parse_reply(Review, answer.reply.text, finished=answer.reply.finished)
                check_rubrics(review, plan.rubrics)
                scores = review.scores
                return sum(scores.values()) / len(scores)
            except InvalidReply:
                return 3.0

        return list(await asyncio.gather(*(one(i, row) for i, row in enumerate(rows))))


TABLE = """{measured_on}; {versions}.

SmolLM2-135M, 4 bit, with the examples of the default recipe; first drafts, one constraint each, no other check:

| kind | kept | of |
|---|---|---|
{yields}

Whether it can judge: {count} of its answers that had passed every check of an early version of the default recipe, {good}
of them judged good by eye (`judged_answers.jsonl`). The area under the ROC curve is the probability that a good answer
scores above a poor answer; .5 is chance. With few answers, its standard error is about .06. The author made the labels without
seeing scores; confidence was then picked on these same answers, so its number is likely to be a little too good.

| judge | area under the ROC curve |
|---|---|
| its confidence: the geometric mean of its token probabilities, as it wrote | {confidence:.2f} |
| itself, by the critic's prompt (scores by rubric, temperature 0) | {rubric:.2f} |
"""


def table() -> str:
    """Both measurements as Markdown."""
    rows = read_judged_answers()
    good = [row.good for row in rows]
    plan = load_recipe_plan("constrained-instructions")
    return TABLE.format(
        measured_on=describe_measurement(),
        versions=", ".join(f"{name} {version}" for name, version in collect_versions().items()),
        yields="\n".join(f"| `{kind}` | {kept} | {tried} |" for kind, kept, tried in asyncio.run(measure_yields())),
        count=len(rows),
        good=sum(good),
        confidence=area_under_roc([row.confidence for row in rows], good),
        rubric=area_under_roc(asyncio.run(score_by_rubrics(plan, rows)), good),
    )
