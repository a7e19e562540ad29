"""The estimate of a run from a few previewed samples: calls, tokens, cost and time, with ranges. Knows no running teacher."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from agents.planning.run_plan import RunPlan
from agents.studies.predicted_totals import predict_candidates, predict_kept, predict_sum, predict_sum_until
from core.config.teachers import OWN_PROVIDERS
from core.intervals import IntervalEstimate
from core.runs.records import RunEstimate
from core.sample import AgentTurn, Sample, SampleStatus, TokenUsage


class PreviewedSamples(NamedTuple):
    """A run's first samples, and how long they took."""

    samples: list[Sample]
    seconds: float
    """From the start of the first to the end of the last."""
    call_seconds: Mapping[str, float]
    """Mean seconds of a call by teacher, without the wait for a slot."""


def find_turn_teacher(plan: RunPlan, turn: AgentTurn) -> str:
    """The name of the teacher that was asked in this turn."""
    agents, solver = plan.recipe.agents, plan.solver
    if turn.agent == "solver" and solver:
        return solver.teacher
    if turn.agent == "critic" and agents.critic:
        return agents.critic.teacher
    return agents.verifier.teacher if turn.agent == "verifier" else agents.generator.teacher


def estimate_run(plan: RunPlan, preview: PreviewedSamples) -> RunEstimate:
    """The totals of the plan's run, if its other samples are like the previewed ones. There must be at least one of these."""
    samples, goal, most = preview.samples, sum(plan.recipe.goals.values()), plan.recipe.samples
    kept = [sample.state is SampleStatus.kept for sample in samples]
    reachable = bool(goal and any(kept))

    def predict(value: Callable[[Sample], float]) -> IntervalEstimate:
        values = [value(sample) for sample in samples]
        return (predict_sum_until(values, kept, goal, most) if reachable else None) or predict_sum(values, most)

    calls = _limit(predict(lambda sample: sample.usage.calls), most * plan.max_calls_per_sample())
    wanted = predict_candidates(kept, goal) if reachable else None
    candidates = _limit(wanted or IntervalEstimate(value=most, low=most, high=most), most)
    agents: dict[str, TokenUsage] = {}
    for turn in (turn for sample in samples for turn in sample.turns):
        agents[turn.agent] = agents.get(turn.agent, TokenUsage()) + turn.usage
    unpriced = sorted(name for name in plan.teachers if plan.recipe.teachers[name].prices() is None)
    currencies = {record.currency for record in plan.prices.values()}
    estimate = RunEstimate(
        previewed=len(samples),
        kept=sum(kept),
        goal=goal,
        candidates=candidates,
        kept_samples=_limit(predict_kept(kept, most), goal or most),
        calls=calls,
        tokens=predict(lambda sample: sample.usage.prompt_tokens + sample.usage.completion_tokens),
        prompt_tokens=predict(lambda sample: sample.usage.prompt_tokens),
        cached_tokens=predict(lambda sample: sample.usage.cached_tokens),
        completion_tokens=predict(lambda sample: sample.usage.completion_tokens),
        reasoning_tokens=predict(lambda sample: sample.usage.reasoning_tokens),
        cost=None if unpriced else predict(lambda sample: _price_sample(plan, sample)),
        currency=currencies.pop() if len(currencies) == 1 else None,
        seconds=_predict_seconds(plan, preview, calls, candidates),
        agents=agents,
        notes=[],
    )
    notes = [*_list_gaps(plan, estimate, unpriced), *_list_exceeded_limits(plan, estimate)]
    return estimate.model_copy(update={"notes": notes})


def _limit(estimate: IntervalEstimate, most: float) -> IntervalEstimate:
    return IntervalEstimate(value=min(estimate.value, most), low=min(estimate.low, most), high=min(estimate.high, most))


def _price_sample(plan: RunPlan, sample: Sample) -> float:
    cost = 0.0
    for turn in sample.turns:
        if prices := plan.recipe.teachers[find_turn_teacher(plan, turn)].prices():
            cost += prices.cost(turn.usage)
    return cost


def _predict_seconds(
    plan: RunPlan, preview: PreviewedSamples, calls: IntervalEstimate, candidates: IntervalEstimate
) -> IntervalEstimate:
    """Seconds of producing: from the seconds per call with every slot in use, to the throughput of the preview. A teacher on this
    machine hardly gains from more calls at once, so its estimate is the throughput of the preview.
    """
    number, usage = len(preview.samples), dict[str, TokenUsage]()
    for turn in (turn for sample in preview.samples for turn in sample.turns):
        name = find_turn_teacher(plan, turn)
        usage[name] = usage.get(name, TokenUsage()) + turn.usage
    at_best = at_rate = chain = 0.0
    for name, used in usage.items():
        teacher = plan.recipe.teachers[name]
        busy = used.calls * preview.call_seconds.get(name, 0.0) / number
        chain += busy
        at_best = max(at_best, busy / teacher.max_concurrent)
        at_rate = max(
            at_rate,
            60 * used.calls / number / teacher.requests_per_minute if teacher.requests_per_minute else 0.0,
            60 * (used.prompt_tokens + used.completion_tokens) / number / teacher.tokens_per_minute
            if teacher.tokens_per_minute
            else 0.0,
        )
    fast, slow = max(at_best, at_rate), max(at_best, at_rate, preview.seconds / number)
    own = any(plan.recipe.teachers[name].model.partition("/")[0] in OWN_PROVIDERS for name in usage)
    below, above = (calls.low / calls.value, calls.high / calls.value) if calls.value else (1.0, 1.0)
    low, value, high = (
        max(chain, each * candidates.value) for each in (fast * below, slow if own else fast, slow * above)
    )
    return IntervalEstimate(value=value, low=min(low, value), high=max(high, value))


def _list_gaps(plan: RunPlan, estimate: RunEstimate, unpriced: Sequence[str]) -> list[str]:
    """What the estimate cannot say or does not include."""
    recipe, notes = plan.recipe, []
    if estimate.previewed == 1:
        notes.append("one sample shows no range: preview more with -n")
    if estimate.goal and not estimate.kept:
        notes.append(
            f"none of {estimate.previewed} previewed samples is kept: the numbers are for all {recipe.samples:,} candidates, and "
            f"whether {estimate.goal:,} of them are kept is unknown"
        )
    elif estimate.goal and recipe.filters:
        notes.append("filters are not run in a preview: each sample that they drop takes further candidates")
    if unpriced:
        notes.append(f"no cost is estimated: the price of {', '.join(unpriced)} is unknown")
    if any(recipe.teachers[name].batch for name in plan.teachers):
        notes.append("the time is that without batches, which take up to 24 hours each")
    if recipe.student and recipe.student.evaluation:
        asked = recipe.student.evaluation
        panel = f" and {asked.panel} tasks of the general panel" if asked.panel else ""
        notes.append(f"not included: {asked.requests} held-out requests{panel} to the teacher at the end")
    return notes


def _list_exceeded_limits(plan: RunPlan, estimate: RunEstimate) -> list[str]:
    """Which limits of the budget the estimate exceeds, in one sentence."""
    budget, exceeded = plan.recipe.budget, []
    minutes = (estimate.seconds.low / 60, estimate.seconds.high / 60)
    for name, limit, (low, high) in (
        ("calls", budget.calls, (estimate.calls.low, estimate.calls.high)),
        ("tokens", budget.tokens, (estimate.tokens.low, estimate.tokens.high)),
        ("cost", budget.cost, (estimate.cost.low, estimate.cost.high) if estimate.cost else (0.0, 0.0)),
        ("minutes", budget.minutes, minutes),
    ):
        if limit is not None and high > limit:
            exceeded.append(f"budget.{name} = {limit:g} {'is' if low > limit else 'may be'} too small")
    return [f"the run may end early: {', '.join(exceeded)}"] if exceeded else []
