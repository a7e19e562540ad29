"""Prompt values: the names that each prompt may use as placeholders, and the check of a run's seeds against its prompts.

Knows no teacher, and no reply.
"""

from collections.abc import Mapping, Set

import prompts
from agents.planning.run_plan import RunPlan
from core.errors import UsageError
from core.sample import Seed


def list_prompt_values(plan: RunPlan, role: str, seed: Seed) -> Set[str]:
    """The names that the prompt of this role may use as placeholders, for this seed."""
    family = plan.family
    if role in family.writes:
        return family.prompt_values(seed).keys()
    if role in family.revises:
        return family.prompt_values(seed).keys() | {"draft", "advice", "faults"}
    if role == "critic":
        return {*seed.data, "answer", *family.fields, "conversation", *(() if family.converses else ("request",))}
    asking_checks = [bound for bound in plan.checks if role in bound.check.roles]
    try:  # our prompts use every value of their agent
        values = prompts.load_prompt(plan.recipe.family, role, None, plan.family.prompts).placeholders
    except UsageError:
        values = frozenset()
    if plan.attempt_check and plan.attempt_judge and plan.attempt_judge.role == role:
        asking_checks = [*asking_checks, plan.attempt_check]
    if any(bound.config.path is not None or bound.extension for bound in asking_checks):
        values |= plan.prompt(role).placeholders  # only a check of the user's knows its values
    return values | seed.data.keys() if asking_checks else values


def check_prompt_placeholders(plan: RunPlan, seed: Seed) -> None:
    """Fill every prompt that this seed needs. Raises UsageError where a placeholder has no value."""
    roles = [role for role in plan.roles if role not in plan.family.writes]
    for role in (plan.family.prompt_role(seed), *roles):
        plan.prompt(role).fill(dict.fromkeys(list_prompt_values(plan, role, seed), ""))


def find_placed_columns(plan: RunPlan, columns: Set[str]) -> dict[str, Set[str]]:
    """The columns of the seeds that each prompt uses, by role."""
    return {role: plan.prompt(role).placeholders & columns for role in (*plan.family.writes, *plan.roles)}


def find_missing_columns(plan: RunPlan, placed: Mapping[str, Set[str]], seed: Seed) -> dict[str, str]:
    """The `placed` columns that this seed lacks, each with the name of a prompt that uses it."""
    return {
        name: plan.prompt(role).name
        for role, names in placed.items()
        for name in sorted(names - list_prompt_values(plan, role, seed))
    }
