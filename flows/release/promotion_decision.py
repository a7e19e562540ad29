"""Whether the student of a run becomes the generator of the next generation. Reads records; measures nothing."""

from typing import TYPE_CHECKING

from core.config.recipe import MAX_GENERAL_LOSS, Recipe
from core.runs.records import CollapseVerdict, RunManifest
from core.runs.releases import PromotionRecord, describe_verification, identify_model
from core.runs.run_dir import RunDir
from core.runs.student_records import EvaluationRecord
from core.shared_options import name_student_file
from core.storage.atomic_files import read_json
from flows.data.student_files import list_writing_prompts
from flows.terminal.text_format import format_percent

if TYPE_CHECKING:
    from core.runs.releases import Release

STUDENT_WEIGHTS = f"student/{name_student_file()}"
"""In a run: the student's weights as they were evaluated."""


def decide_promotion(run: RunDir, manifest: RunManifest, recipe: Recipe) -> PromotionRecord:
    """The decision on the student of a finished run, by the recipe with which the run was made."""
    from agents.families import find_recipe_family

    reasons = find_promotion_refusals(manifest, recipe)
    if not reasons and (fault := _find_weights_fault(run, manifest)):
        reasons.append(fault)
    evaluation = manifest.evaluation
    return PromotionRecord(
        promoted=not reasons,
        reasons=tuple(reasons),
        weights=None if reasons else manifest.files[STUDENT_WEIGHTS],
        generator=manifest.agents.generator or recipe.generator_teacher.model,
        replaces=identify_model(recipe.generator_teacher),
        comparison=evaluation.find_comparison("teacher") if evaluation else None,
        general=evaluation.panel.comparison if evaluation and evaluation.panel else None,
        max_general_loss=MAX_GENERAL_LOSS,
        verification=describe_verification(
            recipe, run.read_sources(), asks=any(check.asks for check in manifest.agents.checks),
            writing_prompts=list_writing_prompts(find_recipe_family(recipe)),
        ),
    )  # fmt: skip


def find_promotion_refusals(manifest: RunManifest, recipe: Recipe) -> list[str]:
    """Why the student may not be promoted, by the measurements of its run. Empty if it may be."""
    reasons = [
        f"the verdict on collapse is {record.headline}"
        for record in (manifest.collapse, manifest.collapse_parent)
        if record and record.verdict is CollapseVerdict.collapse
    ]
    if manifest.collapse is None:
        reasons.append("the run was not assessed for collapse: continue it with --resume")
    if manifest.student is None:
        return [*reasons, "the run has no student: `stillhouse run` trains it, `stillhouse generate` does not"]
    evaluation = manifest.evaluation
    if evaluation is None:
        return [*reasons, "the student was not compared with its teacher: continue the run with --resume"]
    return [*reasons, *_find_pass_rate_refusals(evaluation), *_find_general_refusals(evaluation)]


def _find_pass_rate_refusals(evaluation: EvaluationRecord) -> list[str]:
    comparison = evaluation.find_comparison("teacher")
    if comparison is None:
        return ["the student was not compared with its teacher"]
    if comparison.conclusion == "better":
        return []
    passed = f"{comparison.both + comparison.student_only} and {comparison.both + comparison.other_only}"
    low, high = (f"{100 * end:+.0f}" for end in (comparison.difference.low, comparison.difference.high))
    advice = "" if comparison.conclusion == "worse" else "; ask more (`student.evaluation.requests`)"
    return [
        f"the student does not surely pass more than its teacher: {passed} of {evaluation.requests} held-out requests, a "
        f"difference of {low} to {high} points{advice}"
    ]


def _find_general_refusals(evaluation: EvaluationRecord) -> list[str]:
    panel = evaluation.panel
    if panel is None:
        return [
            "the general panel was not asked, so what the student forgot is unknown: set `student.evaluation.panel`"
        ]
    if panel.comparison is None:
        return ["the student was not compared with its start on the general panel: its start is unknown or missing"]
    loss = -panel.comparison.difference.value
    if loss <= MAX_GENERAL_LOSS + 1e-9:
        return []
    return [
        f"the student lost {format_percent(loss)} of the {panel.tasks} tasks of the general panel, more than "
        f"{format_percent(MAX_GENERAL_LOSS)}"
    ]


def _find_weights_fault(run: RunDir, manifest: RunManifest) -> str | None:
    """Why the student's file may not be promoted: only the very bytes that were evaluated may."""
    evaluation, recorded = manifest.evaluation, manifest.files.get(STUDENT_WEIGHTS)
    assert evaluation is not None
    if recorded is None:
        return "the student has no GGUF file: its architecture cannot be stored as one"
    if read_json(run.student / "student.json")["digest"] != evaluation.student_digest:
        return "the student is not the one that was evaluated: continue the run with --resume"
    if evaluation.weights != recorded:
        return f"{STUDENT_WEIGHTS} is not the file that was evaluated: remove the student's folder, and continue with --resume"
    return None


def format_promotion(release: "Release") -> list[str]:
    """The decision in words, a sentence each; empty if the recipe promotes no student."""
    promotion = release.lineage.promotion
    if promotion is None:
        return []
    if promotion.promoted:
        return ["its student is the generator of the next generation"]
    return [f"not promoted: {reason}" for reason in promotion.reasons]
