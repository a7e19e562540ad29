"""Preview: a few samples before a run, and the totals of the run predicted from them, with 95 % intervals. Stores nothing."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import correlation, fmean, stdev
from time import monotonic
from typing import NamedTuple

from agents.calls.agent_context import open_scratch_context
from agents.calls.budget import BudgetAccount
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import produce_samples
from core.config.recipe import BudgetConfig
from core.config.teachers import OWN_PROVIDERS
from core.intervals import Z_95, IntervalEstimate, wilson_bound
from core.runs.records import RunEstimate
from core.sample import AgentTurn, Sample, SampleStatus, TokenUsage
from core.stop_signal import RunStopped, UserStop


class PreviewedSamples(NamedTuple):
    """A run's first samples, and how long they took."""

    samples: list[Sample]
    seconds: float
    """From the start of the first to the end of the last."""
    call_seconds: Mapping[str, float]
    """Mean seconds of a call by teacher, without the wait for a slot."""


async def preview_samples(
    plan: RunPlan, number: int, stop: UserStop, *, budget: BudgetConfig | None = None, journal: Path | None = None
) -> PreviewedSamples:
    """The run's first `number` samples, made in the same way.

    The recipe's own budget is for runs. `budget` limits the preview, and `journal` is a file that records what it spends.

    Raises:
        RunStopped: if `stop` was set, or the budget spent, before all samples were made.
        StillhouseError: as `AgentContext.ask`.
    """
    samples: dict[str, Sample] = {}
    async with open_scratch_context(plan, stop, budget=budget, journal=journal) as context:
        seeds = RunSeeds(plan, "preview0")
        seeds.check()
        first, started_at = seeds[:number], monotonic()
        await produce_samples(context, first, lambda sample: samples.update({sample.id: sample}))
        seconds = monotonic() - started_at
        if len(samples) < len(first):
            raise context.dispatcher.stop_signal.reason or RunStopped
    call_seconds = {
        name: account.answer_seconds / account.answered
        for name, account in context.dispatcher.accounts.items()
        if isinstance(account, BudgetAccount) and account.answered
    }
    return PreviewedSamples([samples[seed.id] for seed in first], seconds, call_seconds)


def _find_turn_teacher(plan: RunPlan, turn: AgentTurn) -> str:
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
        kept_samples=_limit(_predict_kept(kept, most), goal or most),
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
        if prices := plan.recipe.teachers[_find_turn_teacher(plan, turn)].prices():
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
        name = _find_turn_teacher(plan, turn)
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


# Prediction


def predict_sum(values: Sequence[float], number: float) -> IntervalEstimate:
    """The sum over `number` new samples like those with `values`.

    Student's prediction interval of a mean, on a logarithmic scale by the delta method, so that it stays positive. One value has
    no interval: both ends are the estimate.
    """
    mean = fmean(values)
    reach = _relative_reach(values, number)
    total = mean * number
    return IntervalEstimate(value=total, low=total * math.exp(-reach), high=total * math.exp(reach))


def _predict_kept(kept: Sequence[bool], number: int) -> IntervalEstimate:
    """The kept samples of `number` new ones."""
    share, low, high = _predict_share(kept, number)
    return IntervalEstimate(value=number * share, low=number * low, high=number * high)


def predict_candidates(kept: Sequence[bool], goal: int) -> IntervalEstimate | None:
    """The samples that it takes to keep `goal`; None if none of the samples was kept."""
    if not any(kept):
        return None
    wanted = goal * len(kept) / sum(kept)
    share, low, high = _predict_share(kept, wanted)
    return IntervalEstimate(value=goal / share, low=goal / high, high=goal / low)


def _predict_share(kept: Sequence[bool], number: float) -> tuple[float, float, float]:
    """The share of kept samples among `number` new ones, with its lower and upper end.

    Wilson's interval (1927) at the number of samples that makes it a prediction: 1 / (1/n + 1/m) for n samples and m new ones,
    whose own chance counts too.
    """
    share = sum(kept) / len(kept)
    tries = len(kept) * number / (len(kept) + number)
    return share, wilson_bound(share * tries, tries, -Z_95), wilson_bound(share * tries, tries, Z_95)


def predict_sum_until(values: Sequence[float], kept: Sequence[bool], goal: int, most: int) -> IntervalEstimate | None:
    """The sum over new samples until `goal` of them are kept, and at most `most` samples; None if none of the samples was kept.

    It combines the intervals of the mean and of the share by the method of variance estimates recovery (MOVER; Zou and Donner
    2008) on a logarithmic scale, with the correlation of value and rejection: rejected samples usually cost more.
    """
    candidates = predict_candidates(kept, goal)
    if candidates is None:
        return None
    total = fmean(values) * candidates.value
    all_samples = predict_sum(values, most)
    if not total:
        return all_samples
    mean = _relative_reach(values, candidates.value)
    varied = len(set(values)) > 1 and len(set(kept)) > 1
    r = -correlation(values, [float(one) for one in kept]) if varied else 0.0

    def combine(share: float) -> float:
        return math.sqrt(max(0.0, mean**2 + share**2 + 2 * r * mean * share))

    low = total * math.exp(-combine(math.log(candidates.value / candidates.low)))
    high = total * math.exp(combine(math.log(candidates.high / candidates.value)))
    return IntervalEstimate(
        value=min(total, all_samples.value), low=min(low, all_samples.low), high=min(high, all_samples.high)
    )


def _relative_reach(values: Sequence[float], number: float) -> float:
    """Half of the prediction interval of a mean of `number` new values, relative to it."""
    from scipy.special import stdtrit  # the quantile of Student's distribution

    mean = fmean(values)
    if len(values) < 2 or not mean:
        return 0.0
    error = stdev(values) / mean * math.sqrt(1 / len(values) + 1 / number)
    return float(stdtrit(len(values) - 1, 0.975)) * error
