"""Recipe families by name, and what is wrong in a recipe that only its family can tell."""

from agents.families.arithmetic import Arithmetic
from agents.families.base import Family
from agents.families.constrained_instructions import ConstrainedInstructions
from core.errors import Problem
from core.recipe import Recipe

ALL: tuple[Family, ...] = (ConstrainedInstructions(), Arithmetic())
FAMILIES = {family.name: family for family in ALL}


def family_problems(recipe: Recipe) -> list[Problem]:
    """Unknown family, wrong `[task]` options, verifiers that the family has not."""
    from pydantic import ValidationError

    family = FAMILIES.get(recipe.family)
    if family is None:
        return [Problem("family", f"unknown family {recipe.family!r}; known are {', '.join(FAMILIES)}")]
    problems = []
    try:
        family.options.model_validate(recipe.task)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            where = ".".join(map(str, ("task", *detail["loc"])))
            problems.append(Problem(where, detail["msg"].lower().removeprefix("value error, ")))
    for i, verifier in enumerate(recipe.verifiers):
        if verifier.type not in family.checks:
            known = ", ".join(family.checks)
            problems.append(
                Problem(f"verifiers.{i}.type", f"{family.name} has no check {verifier.type!r}; it has {known}")
            )
    return problems
