"""The verifier: runs the recipe's checks on a candidate in order, most of those that call a teacher after the critic. It sees
neither the author nor the critique. The solver: a weaker teacher that attempts a verified sample's question alone, each attempt
judged by the recipe's first check with a known answer, so that its pass rate measures the difficulty.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langgraph.runtime import Runtime
from pydantic import BaseModel

from agents.calls.agent_context import AgentContext
from agents.checks.base import HINT, CheckBroken, Subject, refuse_to_ask
from agents.checks.registry import BoundCheck
from agents.reply_schema import Finding, InvalidReply
from agents.roles.sample_state import AgentHandover, SampleState, StateUpdate
from core.sample import REPAIR_STRIDE, AgentTurn, Candidate, Seed, render_values, show_images
from teachers.base import CallFailed, CallKey


async def run_verifier(state: SampleState, runtime: Runtime[AgentContext]) -> StateUpdate:
    progress = state["progress"]
    candidate = progress.candidate
    assert candidate is not None, "the verifier only gets a validated candidate"
    turns: list[AgentTurn] = []
    findings: list[Finding] = []
    broken = ""
    context = runtime.context
    critic = context.recipe.agents.critic
    hints = progress.awaits_review(context.recipe) and critic is not None and critic.type == "teacher"
    try:
        due = _due_checks(state, context)
        await run_checks(context, state["seed"], candidate, progress.revision, turns, findings, due, hints=hints)
    except CallFailed as error:
        return {"handovers": [AgentHandover("verifier", "", tuple(turns), failure=str(error))]}
    except CheckBroken as error:
        findings.append(Finding(check=error.check, passed=False, evidence=error.evidence))
        broken = str(error)
    payload = {"findings": [finding.model_dump() for finding in findings]}
    return {"handovers": [AgentHandover("verifier", payload, tuple(turns), broken=broken)]}


def _due_checks(state: SampleState, context: AgentContext) -> Collection[BoundCheck]:
    """The checks of this visit: all, or those before or after the critic's review."""
    plan, progress = context.plan, state["progress"]
    if progress.awaits_review(context.recipe):
        return plan.early_checks
    reviewed = any(one.revision == progress.revision for one in progress.critiques)
    return plan.late_checks if reviewed else plan.checks


async def run_checks(
    context: AgentContext, seed: Seed, candidate: Candidate, revision: int, turns: list[AgentTurn],
    findings: list[Finding], due: Collection[BoundCheck] | None = None, hints: bool = False,
) -> None:  # fmt: skip
    """Run the recipe's checks, or those that are `due`, up to the first that does not pass. Adds their findings to `findings`,
    their calls to `turns`. With `hints`, faults of checks whose `hint` is true pass, for the critic.

    Raises:
        CallFailed: if the verifier's teacher does not answer.
        CheckBroken: if a check raised an error; `findings` has the results of the checks before it.
    """
    columns = render_values(seed.data)
    first_question = 0  # of the current check, so that no two questions share a number

    async def ask(
        role: str, contract: type[BaseModel], values: Mapping[str, str], *, which: int, temperature: float,
        top_logprobs: int = 0, images: Sequence[str] = (),
    ) -> Any:  # fmt: skip
        place = first_question + which
        return await context.ask_verifier(
            seed, revision, turns, role, contract, {**columns, **values}, place, temperature, top_logprobs, images
        )

    for bound in context.plan.checks:
        if due is not None and bound not in due:
            first_question += bound.check.calls(bound.options)
            continue
        results = await bound.check.findings(Subject(seed, candidate, ask), bound.options)
        first_question += bound.check.calls(bound.options)
        if hints and bound.check.hint:
            results = [
                one if one.passed else one.model_copy(update={"passed": True, "evidence": f"{HINT}{one.evidence}"})
                for one in results
            ]
        findings += results
        if not all(finding.passed for finding in results):
            return


async def run_solver(state: SampleState, runtime: Runtime[AgentContext]) -> StateUpdate:
    progress = state["progress"]
    candidate = progress.candidate
    assert candidate is not None, "the solver only attempts a verified candidate"
    turns: list[AgentTurn] = []
    results: list[bool] = []
    broken = ""
    try:
        await _attempt_question(runtime.context, state["seed"], candidate, progress.revision, turns, results)
    except CallFailed as error:
        return {"handovers": [AgentHandover("solver", "", tuple(turns), failure=str(error))]}
    except CheckBroken as error:
        broken = str(error)
    return {"handovers": [AgentHandover("solver", {"attempts": results}, tuple(turns), broken=broken)]}


async def _attempt_question(
    context: AgentContext,
    seed: Seed,
    candidate: Candidate,
    revision: int,
    turns: list[AgentTurn],
    results: list[bool],
) -> None:
    """Ask for the recipe's attempts, one after the other, until their result is certain to be unwanted. Adds whether each passed
    to `results`, its calls to `turns`.

    Raises:
        CallFailed: if the solver's teacher does not answer.
        CheckBroken: if the check that judges an attempt raised an error.
    """
    plan, difficulty = context.plan, context.recipe.difficulty
    bound, judge, solver = plan.attempt_check, plan.attempt_judge, plan.solver
    if not (difficulty and bound and judge and solver):
        raise AssertionError("the plan of a recipe that measures difficulty has all of them")
    subject = Subject(seed, candidate, refuse_to_ask)
    values = {**render_values(seed.data), **judge.values(subject, bound.options)}
    messages = show_images(context.prompt(judge.role, values), candidate.images)
    for which in range(difficulty.attempts):
        number = which * REPAIR_STRIDE
        key = CallKey(sample=seed.index, seed=seed.digest, agent="solver", revision=revision, attempt=number)
        try:
            reply = await context.ask_until_valid(key, solver, messages, judge.reply, difficulty.temperature, turns)
        except InvalidReply:
            results.append(False)
        else:
            results.append(await bound.check.accepts_attempt(subject, reply, bound.options))
        if difficulty.is_settled(results):
            return
