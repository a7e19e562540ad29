"""The release gate: what a run must meet to be released. Reads the manifest; measures nothing."""

from typing import NamedTuple

from core.config.recipe import Recipe, ReleaseGate
from core.runs.records import CollapseRecord, CollapseVerdict, GateRecord, RunManifest
from flows.terminal.text_format import format_percent

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
    return refusals


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
