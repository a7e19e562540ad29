"""Topology study: the same seeds under each topology with the same budget of tokens, judged by criteria that no agent used.

The ground truth is the fault of a word problem of `fake/faulty`, from its seed and text alone, by other rules than the teacher's.
Knows neither Prefect nor intervals, and stores nothing.
"""

import ast
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

from agents.calls.agent_context import open_scratch_context
from agents.calls.budget import BudgetExhausted
from agents.checks.base import CheckBroken, Subject
from agents.checks.registry import BoundCheck, bind_checks
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import produce_samples
from agents.topologies.topology_graphs import TOPOLOGY_BUILDERS
from core.config.agents import VerifierConfig
from core.config.recipe import BudgetConfig
from core.errors import UsageError
from core.sample import Candidate, Sample, SampleStatus, Seed, Spending
from core.stop_signal import RunStopped, UserStop

TOLERANCE = 1e-4
"""Relative: a solution prints its numbers with six digits."""
STORY_OPERATIONS = {"more come": "+", "taken away": "-", "times as many": "*", "shared equally": "/"}
REQUESTED_OPERATIONS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


class ProblemFault(StrEnum):
    """The fault of a kept sample: the first that applies, in this order."""

    miscoordination = "miscoordination"
    """Made for another request, correct or not: another story, or other operations in both story and expression."""
    omission = "omission"
    """The story lacks a number of the expression, or story or solution lack a step of it."""
    drift = "drift"
    """A number of the story differs in the expression or the solution."""
    contradiction = "contradiction"
    """Expression, solution and answer have different results."""


def find_problem_fault(seed: Seed, candidate: Candidate) -> ProblemFault | None:
    """The fault of a candidate, or None if the candidate is consistent and matches the request."""
    fields = candidate.fields
    story, expression = str(fields["problem"]), str(fields["expression"])
    requested = "".join(
        REQUESTED_OPERATIONS[name] * (2 if twice else 1)
        for name, twice in re.findall(r"\b(add|subtract|multiply|divide)\b( twice)?", seed.data["steps"])
    )
    in_story = "".join(STORY_OPERATIONS[phrase] for phrase in re.findall("|".join(STORY_OPERATIONS), story))
    computed = "".join(re.findall(r"[-+*/]", expression))
    if f"about {seed.data['story']}." not in story or (in_story == computed != requested):
        return ProblemFault.miscoordination
    steps = re.findall(r"(\S+) [-+*/] (\S+) = (\S+)\.(?: |$)", str(fields["solution"]))
    if re.search(r"\bsome\b", story) or in_story != computed or len(steps) != len(requested):
        return ProblemFault.omission
    numbers = re.findall(r"\d+", story)
    if numbers != re.findall(r"\d+", expression) or numbers != [steps[0][0], *(step[1] for step in steps)]:
        return ProblemFault.drift
    last = re.search(r"So there are (\S+)\.$", str(fields["solution"]))
    results = [steps[-1][2], last[1] if last else "nan", str(fields["answer"])]
    with suppress(ValueError, SyntaxError, ZeroDivisionError):
        value = float(_evaluate(ast.parse(expression, mode="eval").body))
        if all(abs(float(result) - value) <= TOLERANCE * max(1.0, abs(value)) for result in results):
            return None
    return ProblemFault.contradiction


def _evaluate(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.BinOp() if apply := OPERATORS.get(type(node.op)):
            return apply(_evaluate(node.left), _evaluate(node.right))
    raise ValueError(f"`{ast.unparse(node)}` is no number and no sum")


BASELINE_TOPOLOGY = "single"
TOPOLOGY_KINDS = ("single", "independent", "decentralized", "centralized")
GroundTruth = Callable[[Seed, Candidate], str | None]
GROUND_TRUTHS: Mapping[str, GroundTruth] = {"fake/faulty": find_problem_fault}
"""Teachers whose output a program can judge exactly, by model name."""


@dataclass(frozen=True)
class TopologyStudy:
    """What is compared, and which samples count as wrong."""

    plan: RunPlan
    """With only the checks that the agents use."""
    held_out: tuple[BoundCheck, ...]
    """Checks that the agents do not use: a kept sample that fails a check is wrong."""
    ground_truth: GroundTruth | None
    samples: int
    tokens: int | None
    """Budget of each topology."""

    @property
    def agent_criteria(self) -> list[str]:
        """The criteria of the agents."""
        critic = self.plan.recipe.agents.critic
        return [*([f"critic ({critic.type})"] if critic else []), *(bound.check.name for bound in self.plan.checks)]

    @property
    def truth_criteria(self) -> list[str]:
        """The criteria of the study."""
        return [*(["oracle"] if self.ground_truth else []), *(bound.check.name for bound in self.held_out)]

    def plan_for(self, kind: str) -> RunPlan:
        """The plan of one topology's run. Raises UsageError if the recipe lacks an agent."""
        recipe = self.plan.recipe
        if kind == "independent" and recipe.agents.critic is None:
            raise UsageError(f"{recipe.name}: an independent topology needs a critic; leave it out with --topologies")
        return self.plan.with_recipe(
            topology=recipe.topology.model_copy(update={"kind": kind}),
            budget=BudgetConfig(tokens=self.tokens),
            samples=self.samples,
        )


class StudyOutcome(NamedTuple):
    """The result of one sample."""

    number: int
    """The index of its seed."""
    state: SampleStatus
    fault: str | None
    """The fault of a kept sample by the study's criteria."""
    calls: int
    tokens: int


class TopologyTrial(NamedTuple):
    """One topology: its finished samples, by index, and its spending."""

    kind: str
    outcomes: Sequence[StudyOutcome]
    spent: Spending


def build_study(
    plan: RunPlan, samples: int | None = None, tokens: int | None = None, held_out: Collection[str] = ()
) -> TopologyStudy:
    """A study of `plan`; by default with the recipe's number of samples and budget.

    Without `held_out` checks, the ground truth of the recipe's teacher judges; without ground truth, the last of the recipe's
    checks that ask no teacher.

    Raises:
        UsageError: if a check cannot be held out, or no criterion is left.
    """
    recipe = plan.recipe
    ground_truth = GROUND_TRUTHS.get(recipe.generator_teacher.model)
    names = list(dict.fromkeys(held_out))
    if not names and not ground_truth:
        names = [bound.check.name for bound in plan.checks if not bound.check.calls(bound.options)][-1:]
        if not names:
            raise UsageError(
                f"{recipe.name}: none of its checks does without a teacher, so nothing can tell which samples are kept "
                "wrongly; name a check with --held-out"
            )

    held_out_checks = []
    for name in names:
        bound = next((bound for bound in plan.checks if bound.check.name == name), None)
        if bound is None:
            checks, problems = bind_checks([VerifierConfig(type=name)], plan.family.checks, plan.folder)
            if problems:
                raise UsageError(f"--held-out {name}: {problems[0].what}")
            bound = checks[0]
        if bound.check.calls(bound.options):
            raise UsageError(
                f"--held-out {name}: it asks a teacher, and only a program's finding counts as the truth here"
            )
        held_out_checks.append(bound)

    kept = tuple(bound for bound in plan.checks if bound.check.name not in names)
    verifiers = tuple(bound.config for bound in kept)
    agents = replace(plan.with_recipe(verifiers=verifiers, difficulty=None), checks=kept)
    return TopologyStudy(
        agents, tuple(held_out_checks), ground_truth, samples or recipe.samples, tokens or recipe.budget.tokens
    )


def parse_topologies(names: str) -> list[str]:
    """Topologies from names separated by commas. Raises UsageError for an unknown name."""
    kinds = [name.strip() for name in names.split(",") if name.strip()]
    if not kinds or (unknown := [kind for kind in kinds if kind not in TOPOLOGY_BUILDERS]):
        raise UsageError(
            f"{', '.join(unknown) if kinds else names!r}: no such topology; there are {', '.join(TOPOLOGY_KINDS)}"
        )
    return list(dict.fromkeys(kinds))


async def run_trial(
    study: TopologyStudy, kind: str, stop: UserStop, on_progress: Callable[[int], None] = lambda _: None
) -> TopologyTrial:
    """Make the study's samples under one topology, in order, until the budget is spent. `on_progress` gets the number of
    finished samples.

    Raises:
        RunStopped: if `stop` was set before the end.
        StillhouseError: as `AgentContext.ask`.
    """
    plan = study.plan_for(kind)
    samples_done: list[Sample] = []

    def add_sample(sample: Sample) -> None:
        samples_done.append(sample.model_copy(update={"turns": [], "critiques": [], "verdicts": []}))
        on_progress(len(samples_done))

    async with open_scratch_context(plan, stop, budget=plan.recipe.budget) as context:
        seeds = RunSeeds(plan, "study000")[:]
        for batch in (seeds[:1], seeds[1:]):  # the first sample's cost shows how many samples the budget allows at once
            await produce_samples(context, batch, add_sample)
        reason, spent = context.dispatcher.stop_signal.reason, context.dispatcher.budget.spent
    if reason and not isinstance(reason, BudgetExhausted):
        raise reason
    if stop.is_set():
        raise RunStopped
    outcomes = []
    for sample in sorted(samples_done, key=lambda sample: sample.seed.index):
        fault = await _sample_fault(study, sample) if sample.state == SampleStatus.kept else None
        used = sample.usage
        tokens = used.prompt_tokens + used.completion_tokens
        outcomes.append(StudyOutcome(sample.seed.index, sample.state, fault, used.calls, tokens))
    return TopologyTrial(kind, outcomes, spent)


async def _sample_fault(study: TopologyStudy, sample: Sample) -> str | None:
    """The fault of a kept sample: by the ground truth, or the name of the first held-out check that it fails."""
    if study.ground_truth and (fault := study.ground_truth(sample.seed, sample.candidate)):
        return str(fault)
    subject = Subject(sample.seed, sample.candidate, _refuse_to_ask)
    for bound in study.held_out:
        try:
            findings = await bound.check.findings(subject, bound.options)
        except CheckBroken as broken:
            return str(broken)
        if not all(finding.passed for finding in findings):
            return bound.check.name
    return None


async def _refuse_to_ask(*_: object, **__: object) -> Any:
    raise AssertionError("a held-out check asks no teacher")
