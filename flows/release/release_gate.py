"""The release gate: what a run must meet to be released. Reads the manifest; measures nothing."""

from core.runs.records import CollapseVerdict, RunManifest
from flows.terminal.text_format import format_percent

GATE_OFF_HINT = "or turn the gate off (`collapse.gate = false`, which a finished run accepts with --resume)"


def find_release_refusals(manifest: RunManifest) -> list[str]:
    """The reasons why the dataset may not be released, each with advice. Empty if it may be."""
    if not manifest.counts.kept:
        return ["no sample was kept, so there is nothing to release"]
    refusals = []
    collapse, mix = manifest.collapse, manifest.mix
    if manifest.gated and collapse is None:
        refusals.append(
            f"the run was not assessed for collapse: continue with --resume, {GATE_OFF_HINT}"
            if manifest.has_reference
            else "the recipe names no real text of the same kind, so collapse cannot be measured: set `collapse.reference` to a "
            f"file and run the recipe again, {GATE_OFF_HINT}"
        )
    elif manifest.gated and collapse:
        evidence = f" ({'; '.join(collapse.evidence)})" if collapse.evidence else ""
        advice = f"{'; '.join(collapse.resolved_advice)}; {GATE_OFF_HINT}"
        if collapse.verdict is CollapseVerdict.collapse:
            refusals.append(f"the kept samples show collapse{evidence}: {advice}")
        if collapse.verdict is CollapseVerdict.inconclusive:
            refusals.append(
                f"inconclusive: there are too few documents to distinguish collapse from chance{evidence}: {advice}"
            )
    if mix is not None and mix.real_share < mix.min_real_share:
        refusals.append(
            f"{mix.real:,} of {mix.rows:,} rows are real ({format_percent(mix.real_share)}), less than lineage.min_real_share = "
            f'{mix.min_real_share:g}: add real rows to `lineage.real`, or set `lineage.policy = "budget"`'
        )
    return refusals
