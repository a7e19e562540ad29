"""The topology study: the same seeds under each topology, each with the same budget of tokens, judged by what no agent used.

Knows neither Prefect nor intervals, and keeps nothing on the disk.
"""

import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from agents.brake import Brake, Stop, Stopped
from agents.budget import Budget, BudgetSpent
from agents.checks.base import Subject
from agents.checks.registry import Bound, bind
from agents.crew import DeskCrew
from agents.desk import open_desk
from agents.ledger import Ledger
from agents.oracle import fault_of
from agents.plan import Plan
from agents.produce import Shard, produce
from agents.seeds import Seeds
from agents.topology import BUILDERS
from core.errors import UsageError
from core.recipe import BudgetConfig, CacheConfig, VerifierConfig
from core.sample import Candidate, Sample, Seed, Spent, State

BASELINE = "single"
KINDS = ("single", "independent", "decentralized", "centralized")
Oracle = Callable[[Seed, Candidate], str | None]
ORACLES: Mapping[str, Oracle] = {"fake/faulty": fault_of}
"""Teachers whose language is known so well that a program can tell the truth about what they write."""


@dataclass(frozen=True)
class Study:
    """What is compared, and what counts as wrong."""

    plan: Plan
    """With the checks that the agents use."""
    held_out: tuple[Bound, ...]
    """Checks that they do not use: a kept sample that fails one is wrong."""
    oracle: Oracle | None
    samples: int
    tokens: int | None
    """The most that each topology may spend."""

    @property
    def used(self) -> list[str]:
        """What the agents judge by."""
        critic = self.plan.recipe.agents.critic
        return [*([f"critic ({critic.type})"] if critic else []), *(bound.check.name for bound in self.plan.checks)]

    @property
    def truth(self) -> list[str]:
        """What the study judges by."""
        return [*(["oracle"] if self.oracle else []), *(bound.check.name for bound in self.held_out)]

    def under(self, kind: str) -> Plan:
        """The plan of one topology's run. Raises UsageError where it lacks an agent."""
        recipe = self.plan.recipe
        if kind == "independent" and recipe.agents.critic is None:
            raise UsageError(f"{recipe.name}: an independent topology needs a critic; leave it out with --topologies")
        own: dict[str, Any] = {
            "topology": recipe.topology.model_copy(update={"kind": kind}),
            "budget": BudgetConfig(tokens=self.tokens),
            "cache": CacheConfig(enabled=False),
            "samples": self.samples,
        }
        return replace(self.plan, recipe=recipe.model_copy(update=own))


class Outcome(NamedTuple):
    """What became of one sample."""

    number: int
    """The index of its seed."""
    state: State
    fault: str | None
    """Of a kept sample: what is wrong with it by the study's truth."""
    calls: int
    tokens: int


class Trial(NamedTuple):
    """One topology: the samples that it finished, by index, and all that it was charged."""

    kind: str
    outcomes: Sequence[Outcome]
    spent: Spent


def study_of(
    plan: Plan, samples: int | None = None, tokens: int | None = None, held_out: Collection[str] = ()
) -> Study:
    """A study of `plan` at its own number of samples and budget, unless told. Without `held_out` checks the oracle of its
    teacher decides, or where there is none the last of its checks that ask no teacher.

    Raises:
        UsageError: if a check cannot be held out, or nothing could tell right from wrong.
    """
    recipe = plan.recipe
    oracle = ORACLES.get(recipe.writer.model)
    names = list(dict.fromkeys(held_out)) or ([] if oracle else _last_programmatic(plan))
    held = tuple(_held_out(plan, name) for name in names)
    kept = tuple(bound for bound in plan.checks if bound.check.name not in names)
    verifiers = tuple(bound.asked for bound in kept)
    agents = replace(plan, checks=kept, recipe=recipe.model_copy(update={"verifiers": verifiers}))
    return Study(agents, held, oracle, samples or recipe.samples, tokens or recipe.budget.tokens)


def _last_programmatic(plan: Plan) -> list[str]:
    found = [bound.check.name for bound in plan.checks if not bound.check.calls(bound.options)]
    if not found:
        raise UsageError(
            f"{plan.recipe.name}: none of its checks does without a teacher, so nothing can tell which samples are kept "
            "wrongly; name a check with --held-out"
        )
    return found[-1:]


def _held_out(plan: Plan, name: str) -> Bound:
    bound = next((one for one in plan.checks if one.check.name == name), None)
    if bound is None:
        made, problems = bind([VerifierConfig(type=name)], plan.family.checks, plan.folder)
        if problems:
            raise UsageError(f"--held-out {name}: {problems[0].what}")
        bound = made[0]
    if bound.check.calls(bound.options):
        raise UsageError(f"--held-out {name}: it asks a teacher, and only a program's finding counts as the truth here")
    return bound


def kinds_of(names: str) -> list[str]:
    """Topologies by name, separated by commas. Raises UsageError where there is none of a name."""
    kinds = [name.strip() for name in names.split(",") if name.strip()]
    if not kinds or (unknown := [kind for kind in kinds if kind not in BUILDERS]):
        raise UsageError(f"{', '.join(unknown) if kinds else names!r}: no such topology; there are {', '.join(KINDS)}")
    return list(dict.fromkeys(kinds))


async def trial_of(study: Study, kind: str, stop: Stop, told: Callable[[int], None] = lambda _: None) -> Trial:
    """Make the study's samples under one topology, in their order until the budget is spent. `told` hears how many ended.

    Raises:
        Stopped: if `stop` was set before.
        StillhouseError: as `Crew.ask`.
    """
    plan = study.under(kind)
    ended: list[Sample] = []

    def done(sample: Sample) -> None:
        ended.append(sample.model_copy(update={"turns": [], "critiques": [], "verdicts": []}))
        told(len(ended))

    async with _crew(plan, stop) as (crew, budget):
        seeds = Seeds(plan, "study000")[:]
        for some in (seeds[:1], seeds[1:]):  # one alone, whose cost tells the budget how many it has room for at once
            await produce(Shard(crew, some, done))
        reason, spent = crew.desk.brake.reason, budget.spent
    if reason and not isinstance(reason, BudgetSpent):
        raise reason
    if stop.is_set():
        raise Stopped
    ended.sort(key=lambda sample: sample.seed.index)
    return Trial(kind, [await _outcome(study, sample) for sample in ended], spent)


@asynccontextmanager
async def _crew(plan: Plan, stop: Stop) -> AsyncIterator[tuple[DeskCrew, Budget]]:
    """A crew under the plan's budget whose answers are written down nowhere that stays."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            Budget(plan.recipe.budget, folder / "spend.jsonl", plan.longest_way()) as budget,
            Ledger(folder / "calls.jsonl") as ledger,
        ):
            async with open_desk(plan, budget, Brake(stop), folder, folder) as desk:
                yield DeskCrew(plan, desk, ledger), budget


async def _outcome(study: Study, sample: Sample) -> Outcome:
    usage = sample.usage
    fault = await _fault(study, sample) if sample.state == State.kept else None
    return Outcome(sample.seed.index, sample.state, fault, usage.calls, usage.prompt_tokens + usage.completion_tokens)


async def _fault(study: Study, sample: Sample) -> str | None:
    """What is wrong with a kept sample: the oracle's word, or the name of the first held-out check that it fails."""
    if study.oracle and (fault := study.oracle(sample.seed, sample.candidate)):
        return str(fault)
    subject = Subject(sample.seed, sample.candidate, _nobody)
    for bound in study.held_out:
        if not all(finding.passed for finding in await bound.check.findings(subject, bound.options)):
            return bound.check.name
    return None


async def _nobody(*_: object, **__: object) -> Any:
    raise AssertionError("a held-out check asks nobody")
