"""The reward of an answer: the share of the rules that it keeps, by the checks of its recipe that ask no model.

Held-out checks are no part of a recipe, so they never reward.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from agents.checks.base import CheckBroken, Subject, refuse_to_ask
from agents.planning.run_plan import RunPlan
from agents.reply_schema import InvalidReply
from agents.studies.held_out_evaluation import find_unusable_reply
from core.sample import Message, Seed
from plugins.reinforcement.policy_training import SampledAnswer


def build_reward(
    plan: RunPlan, seeds: Sequence[Seed]
) -> Callable[[Sequence[SampledAnswer]], Coroutine[Any, Any, list[float]]]:
    """The reward of answers to the requests of `seeds`."""

    async def reward(answers: Sequence[SampledAnswer]) -> list[float]:
        return [await grade_answer(plan, seeds[answer.request], answer) for answer in answers]

    return reward


async def grade_answer(plan: RunPlan, seed: Seed, answer: SampledAnswer) -> float:
    """The share of the findings that pass. 0 for an answer that is empty, cut off or cannot be judged."""
    text = answer.text.strip()
    if find_unusable_reply(text, None if answer.finished else "at the limit"):
        return 0.0
    try:
        subject = Subject(seed, plan.family.build_answered(seed, [text]), refuse_to_ask)
        findings = [one for bound in plan.free_checks for one in await bound.check.findings(subject, bound.options)]
    except (InvalidReply, CheckBroken):
        return 0.0
    return sum(one.passed for one in findings) / max(1, len(findings))


def find_reward_fault(plan: RunPlan, questions: Sequence[Message] | None) -> str | None:
    """Why answers to requests such as `questions` cannot be rewarded, in words; None if they can."""
    if questions is None:
        return f"in {plan.family.name} the generator writes the questions, so seeds alone ask no request; leave the step out"
    if sum(message.role == "user" for message in questions) != 1 or questions[-1].role != "user":
        return f"the conversations of {plan.family.name} have several turns, and it learns from one; leave the step out"
    if not plan.free_checks:
        return "every check of the recipe asks a model, and only a program's finding rewards; add a check, or leave the step out"
    return None
