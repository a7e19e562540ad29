"""The generator of a run: the recipe's own, or the promoted student of a release that the run builds on. Reads no row."""

from pathlib import Path
from typing import TYPE_CHECKING

from core.config.recipe import ParentRelease, Recipe
from core.config.teachers import STUDENT_PREFIX, TeacherConfig
from core.errors import UsageError
from core.runs.lineage import Lineage
from core.runs.releases import Release, VerificationRecord, describe_verification, identify_model, locate_releases

if TYPE_CHECKING:
    from agents.families.base import RecipeFamily
    from agents.planning.run_plan import RunPlan

STUDENT_SLOTS = 8
"""Most concurrent conversations of a student."""


def use_promoted_generator(plan: "RunPlan", parent: ParentRelease | None, runs: Path) -> "RunPlan":
    """The plan of a run in the folder `runs` that builds on `parent`. Its generator is the newest promoted student up to that
    release, if the recipe promotes students and there is one. Other agents keep their teachers.

    Raises:
        UsageError: if the recipe verifies less than when that student's data were made.
        StoreError: if a release is damaged.
    """
    if parent is None or not plan.recipe.lineage.promote:
        return plan
    from agents.planning.run_plan import PROMOTED_TEACHER

    release = Lineage(locate_releases(runs) / plan.recipe.name).find_promotion(parent)
    if release is None or not is_still_replaced(release, plan.recipe):
        return plan
    check_verification(release, describe_plan_verification(plan))
    own = plan.recipe.generator_teacher
    student = TeacherConfig(
        model=f"{STUDENT_PREFIX}{release.name}",
        max_concurrent=min(own.max_concurrent, STUDENT_SLOTS),
        slot_tokens=own.slot_tokens,
        gpu_layers=own.gpu_layers,
        threads=own.threads,
    )
    agents = plan.recipe.agents
    generator = agents.generator.model_copy(update={"teacher": PROMOTED_TEACHER})
    return plan.with_recipe(
        teachers={**plan.recipe.teachers, PROMOTED_TEACHER: student.in_release(release.path)},
        agents=agents.model_copy(update={"generator": generator}),
    )


def is_still_replaced(release: Release, recipe: Recipe) -> bool:
    """Whether the recipe's generator is the one whose place the release's student took: it was compared with no other."""
    promotion = release.lineage.promotion
    return promotion is not None and promotion.replaces == identify_model(recipe.generator_teacher)


def check_verification(release: Release, now: VerificationRecord) -> None:
    """Raises UsageError if the recipe verifies less than when the data of the release's student were made."""
    promotion = release.lineage.promotion
    assert promotion is not None
    if missing := promotion.verification.find_missing(now):
        raise UsageError(
            f"{release.lineage.recipe}: its generator is the student of {release.name}, whose data were verified with "
            f"{'; '.join(missing)}, and the recipe no longer has that: restore it, or set lineage.promote = false"
        )


def describe_plan_verification(plan: "RunPlan") -> VerificationRecord:
    return describe_verification(
        plan.recipe, plan.own_sources, asks=plan.check_calls > 0,
        writing_prompts=list_writing_prompts(plan.family),
    )  # fmt: skip


def list_writing_prompts(family: "RecipeFamily") -> frozenset[str]:
    """The prompts with which candidates are written, not judged."""
    return frozenset({*family.writes, *family.revises, "repair", "debate"})
