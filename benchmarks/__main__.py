"""Run every measurement and write README.md."""

import asyncio
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.teacher import area_under_roc, judged_answers, rubric_scores, yields
from core.run import versions
from flows.recipes import load

PAGE = """# Benchmarks

Written by `make bench` on {date}, {machine}; {versions}.

## Which constraints the embedded teacher keeps to

SmolLM2-135M, 4 bit, with the examples of the default recipe; first drafts, one constraint each, no other check.

| kind | kept | of |
|---|---|---|
{yields}

## Whether the embedded teacher can judge

{count} of its answers that had passed every check of an early version of the default recipe, {good} of them judged good
by eye (`judged_answers.jsonl`). The area under the ROC curve is the chance that a good one scores above a poor
one: .5 is chance. With so few, its standard error is about .06. The author made the labels, without seeing
scores; confidence was then picked on these same answers, so its number is likely to be a little too good.

| judge | area under the ROC curve |
|---|---|
| its confidence: the geometric mean of its token probabilities, as it wrote | {confidence:.2f} |
| itself, by the critic's prompt (scores by rubric, temperature 0) | {rubric:.2f} |
"""


def main() -> None:
    rows = judged_answers()
    good = [row.good for row in rows]
    recipe = load("constrained-instructions").recipe
    page = PAGE.format(
        date=datetime.now(UTC).date(),
        machine=f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}",
        versions=", ".join(f"{name} {version}" for name, version in versions().items()),
        yields="\n".join(f"| `{kind}` | {kept} | {tried} |" for kind, kept, tried in asyncio.run(yields())),
        count=len(rows),
        good=sum(good),
        confidence=area_under_roc([row.confidence for row in rows], good),
        rubric=area_under_roc(asyncio.run(rubric_scores(recipe, rows)), good),
    )
    Path(__file__).with_name("README.md").write_text(page, encoding="utf-8")


main()
