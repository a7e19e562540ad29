"""The solver: a weaker teacher that attempts a verified sample's question, so that its pass rate measures the difficulty.

It sees the question alone. The recipe's first check with a known answer judges each attempt.
"""

from langgraph.runtime import Runtime

from agents.calls.agent_context import AgentContext
from agents.checks.base import CheckBroken, Subject
from agents.reply_schema import InvalidReply
from agents.roles.sample_state import AgentHandover, SampleState, StateUpdate
from core.sample import REPAIR_STRIDE, AgentTurn, Candidate, Seed, render_values, show_images
from teachers.base import CallFailed, CallKey


async def run_solver(state: SampleState, runtime: Runtime[AgentContext]) -> StateUpdate:
    progress = state["progress"]
    candidate = progress.candidate
    assert candidate is not None, "the solver only attempts a verified candidate"
    turns: list[AgentTurn] = []
    results: list[bool] = []
    broken = ""
    try:
        await attempt_question(runtime.context, state["seed"], candidate, progress.revision, turns, results)
    except CallFailed as error:
        return {"handovers": [AgentHandover("solver", "", tuple(turns), failure=str(error))]}
    except CheckBroken as error:
        broken = str(error)
    return {"handovers": [AgentHandover("solver", {"attempts": results}, tuple(turns), broken=broken)]}


async def attempt_question(
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
    subject = Subject(seed, candidate, _refuse_to_ask)
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


async def _refuse_to_ask(*_: object, **__: object) -> None:
    raise AssertionError("a judge of attempts asks no teacher")
