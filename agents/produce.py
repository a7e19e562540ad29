"""Produce a shard: drive many samples through the topology at once, as fast as the teachers answer.

Knows neither Prefect nor where shards are kept; a plain coroutine for tests, notebooks and any task runner.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, cast

from langchain_core.runnables import RunnableConfig

import prompts
from agents.crew import Crew, Stop, Stopped
from agents.families import FAMILIES, family_problems
from agents.ledger import Ledger
from agents.state import Work, begin
from agents.teachers import open_teacher, teacher_problems
from agents.teachers.base import Teacher
from agents.topology import build, step_limit
from core.errors import Problem, UsageError
from core.recipe import Recipe
from core.sample import Candidate, Sample, Seed, Usage, digest_of

READ_AHEAD = 1.5
"""Samples under way for each slot of the teachers, so that no slot waits for code between two calls."""


def recipe_problems(recipe: Recipe) -> list[Problem]:
    """Everything wrong in a recipe that agents can tell without asking a teacher."""
    found = [*family_problems(recipe), *teacher_problems(recipe)]
    return found if any(problem.where == "family" for problem in found) else [*found, *_prompt_problems(recipe)]


def _prompt_problems(recipe: Recipe) -> list[Problem]:
    roles = ["generator", "revise", "repair"]
    if recipe.agents.critic and recipe.agents.critic.type == "teacher":
        roles.append("critic")
    if any(verifier.type == "agreement" for verifier in recipe.verifiers):
        roles.append("verifier")
    problems = []
    for role in roles:
        try:
            prompts.load(recipe.family, role)
        except UsageError as error:
            problems.append(Problem("family", str(error)))
    return problems


def make_seeds(recipe: Recipe, path: Path, digest: str) -> list[Seed]:
    """The run's seeds: rows of the seeds file in a shuffled order, gone through as often as needed, each conditioned anew.

    Raises:
        UsageError: naming the line that cannot be used.
    """
    rows = _read_rows(path)
    family = FAMILIES[recipe.family]
    options = family.options.model_validate(recipe.task)
    order: list[int] = []
    while len(order) < recipe.samples:
        order += Random(f"{recipe.seed}/{len(order)}").sample(range(len(rows)), len(rows))
    seeds = []
    for index, row in enumerate(order[: recipe.samples]):
        rng = Random(digest_of([recipe.seed, index]))
        try:
            data = family.condition(rows[row], options, rng)
        except (KeyError, TypeError) as error:
            raise UsageError(f"{path}:{row + 1}: a seed of {family.name} needs the key {error}") from None
        seeds.append(Seed(id=f"{digest[:8]}-{index:06d}", data=data))
    return seeds


def seed_rows(path: Path) -> int:
    """How many seeds the file has."""
    return len(_read_rows(path))


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path}: the seeds cannot be read: {reason}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{path}:{number}: must be a JSON object, not {line.strip()[:40]!r}")
        rows.append(row)
    if not rows:
        raise UsageError(f"{path}: has no seeds")
    return rows


@asynccontextmanager
async def open_teachers(recipe: Recipe) -> AsyncIterator[dict[str, Teacher]]:
    """The teachers that the recipe's agents use, by name."""
    agents = recipe.agents
    used = {agents.generator.teacher}
    used |= {agents.critic.teacher} if agents.critic and agents.critic.type == "teacher" else set()
    used |= {agents.verifier.teacher} if any(v.type == "agreement" for v in recipe.verifiers) else set()
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(open_teacher(recipe.teachers[name])) for name in sorted(used)}


async def produce(
    recipe: Recipe, seeds: Sequence[Seed], teachers: dict[str, Teacher], ledger: Ledger,
    stop: Stop, done: Callable[[Sample], None],
) -> list[Sample]:  # fmt: skip
    """One sample for each seed, in their order; `done` hears of each as it ends.

    Raises:
        Stopped: once everything in flight is answered, if `stop` was set before all were made.
        ProviderError, StoreError: as `Crew.ask`.
    """
    crew = Crew(recipe, teachers, ledger, stop)
    waiting = iter(enumerate(seeds))
    made: dict[int, Sample] = {}

    async def work() -> None:
        for index, seed in waiting:
            made[index] = await make_sample(crew, seed)
            done(made[index])

    slots = sum(teacher.slots for teacher in teachers.values())
    await together(work() for _ in range(min(len(seeds), round(slots * READ_AHEAD) or 1)))
    return [made[index] for index in range(len(seeds))]


async def together(works: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Do all of `works` at once. After a `Stopped` the others go on to their own end, since they wait for answers that
    are paid for; after any other error they are cancelled. None is left running either way.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    except BaseException as error:
        if not isinstance(error, Stopped):
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def make_sample(crew: Crew, seed: Seed) -> Sample:
    """Run one seed through the recipe's topology."""
    graph = build(crew.recipe.topology.kind)
    config = RunnableConfig(recursion_limit=step_limit(crew.recipe))
    work = cast(Work, await graph.ainvoke(begin(seed), config, context=crew))
    outcome = work["outcome"]
    assert outcome is not None, "a topology ends every sample"
    turns = [turn for handover in work["handovers"] for turn in handover.turns]
    return Sample(
        id=seed.id,
        seed=seed,
        state=outcome.state,
        reason=outcome.reason,
        detail=outcome.detail,
        candidate=work["candidate"] or Candidate(messages=[]),
        revisions=work["revision"],
        turns=turns,
        critiques=work["critiques"],
        verdicts=work["verdicts"],
        usage=sum((turn.usage for turn in turns), Usage()),
    )
