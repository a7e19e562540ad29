"""The release gate: what a run must meet to be released. Reads the manifest; measures nothing."""

from typing import TYPE_CHECKING, NamedTuple

from core.config.recipe import MAX_GENERAL_LOSS, Recipe, ReleaseGate
from core.plugins import load_hooks
from core.runs.records import CollapseRecord, CollapseVerdict, GateRecord, RunManifest
from core.runs.releases import PromotionRecord, describe_verification, identify_model
from core.runs.run_dir import RunDir
from core.runs.student_records import EvaluationRecord
from core.shared_options import name_student_file
from core.storage.atomic_files import read_json
from flows.data.student_files import list_writing_prompts
from flows.terminal.text_format import format_percent

if TYPE_CHECKING:
    from core.runs.releases import Release

GATE_OFF_HINT = "or turn the gate off (`collapse.gate = false`, which a finished run accepts with --resume)"
GATE_ON_HINT = "or release it marked inconclusive (`collapse.gate = true`, which a finished run accepts with --resume)"
MIN_REFERENCE_SIZE = 3_000
"""Documents of a reference that allow a verdict on 1,000 samples (`filters.collapse.assessment`)."""


def build_gate_record(recipe: Recipe) -> GateRecord:
    collapse = recipe.collapse
    return GateRecord(gated=collapse.gate, judges_structures=collapse.structures) if collapse else GateRecord()


def describe_release_gate(recipe: Recipe, record: GateRecord) -> str:
    """What a release of a run needs with this gate, in a sentence without full stop."""
    gate, has_reference = record.gated, bool(recipe.collapse and recipe.collapse.reference)
    within = "repetition or few structures" if record.judges_structures else "repetition"
    measured = "collapse" if has_reference else f"{within} (all that is judged without a `collapse.reference`)"
    if gate is False:
        return "off: a run is released whatever its collapse verdict is (`collapse.gate = false`)"
    if gate is True:
        return (
            f"on: a run that shows {measured} is not released; one with too few documents to tell is released and marked "
            "inconclusive"
        )
    if has_reference:
        return "strict: a run that shows collapse, or has too few documents to tell, is not released"
    return "strict: no run is released, since the recipe names no `collapse.reference` to compare with"


def is_marked_inconclusive(manifest: RunManifest) -> bool:
    """Whether a release of the run is marked: too few documents to tell whether it shows collapse."""
    return manifest.collapse is not None and manifest.collapse.verdict is CollapseVerdict.inconclusive


class ReleaseRefusal(NamedTuple):
    """A reason why a dataset may not be released. `str` gives both fields."""

    reason: str
    """With advice."""
    gate_hint: str = ""
    """How another setting of the gate would allow the release. It does not allow to publish."""

    def __str__(self) -> str:
        return "; ".join(filter(None, self))


def find_release_refusals(manifest: RunManifest, gate: ReleaseGate | None = None) -> list[ReleaseRefusal]:
    """The reasons why the dataset may not be released, by the run's gate or another `gate`. Empty if it may be."""
    gate = manifest.gate.gated if gate is None else gate
    if not manifest.counts.kept:
        return [ReleaseRefusal("no sample was kept, so there is nothing to release")]
    refusals = _find_collapse_refusals(manifest.collapse, gate) if gate else []
    mix = manifest.dataset.mix
    if mix is not None and mix.real_share < mix.min_real_share:
        reason = (
            f"{mix.real:,} of {mix.rows:,} rows are real ({format_percent(mix.real_share)}), less than lineage.min_real_share = "
            f'{mix.min_real_share:g}: add real rows to `lineage.real`, or set `lineage.policy = "budget"`'
        )
        refusals.append(ReleaseRefusal(reason))
    found = [fault for hooks in load_hooks(manifest.plugins) for fault in hooks.list_release_faults(manifest)]
    return refusals + [ReleaseRefusal(*fault) for fault in found]


def _find_collapse_refusals(collapse: CollapseRecord | None, gate: ReleaseGate) -> list[ReleaseRefusal]:
    if collapse is None:
        return [ReleaseRefusal("the run was not assessed for collapse: continue with --resume", GATE_OFF_HINT)]
    advice = "; ".join(advice.text for advice in collapse.advice)
    if collapse.verdict is CollapseVerdict.collapse:
        return [ReleaseRefusal(f"the verdict is {collapse.headline}: {advice}", GATE_OFF_HINT)]
    if gate != "strict":
        return []
    if collapse.reference is None:
        reason = (
            'only repetition was measured, and `collapse.gate = "strict"` needs a comparison with real text: set '
            f"`collapse.reference` to a file of at least {MIN_REFERENCE_SIZE:,} documents of the same kind and run the recipe "
            "again"
        )
        return [ReleaseRefusal(reason, GATE_ON_HINT)]
    if collapse.verdict is CollapseVerdict.inconclusive:
        reason = f'the verdict is {collapse.headline}, and `collapse.gate = "strict"` needs a conclusive one: {advice}'
        return [ReleaseRefusal(reason, GATE_ON_HINT)]
    return []


# Whether the student of a run becomes the generator of the next generation

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
