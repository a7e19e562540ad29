"""The gate before a release: what keeps a run's dataset from being released. Knows a manifest; measures nothing."""

from core.run import ADVICE, CollapseRecord, CollapseVerdict, Manifest
from flows.words import percent

OFF = "or turn the gate off by name (`collapse.gate = false`, which a finished run takes with --resume)"


def refusals(manifest: Manifest) -> list[str]:
    """Why the dataset may not be released, each with what to do about it; none where it may be."""
    if not manifest.counts.kept:
        return ["no sample was kept, so there is nothing to release"]
    found = [_collapse_refusal(manifest.collapse)] if manifest.gated else []
    return [why for why in (*found, _real_refusal(manifest)) if why]


def _collapse_refusal(collapse: CollapseRecord | None) -> str:
    if collapse is None:
        return f"no verdict says whether it shows collapse: go on with --resume, so that it is assessed, {OFF}"
    told = f" ({'; '.join(collapse.evidence)})" if collapse.evidence else ""
    if collapse.verdict is CollapseVerdict.collapse:
        return f"the kept samples show collapse{told}: {'; '.join(ADVICE[collapse.verdict])}; {OFF}"
    if collapse.verdict is CollapseVerdict.under_powered:
        return f"there are too few samples to tell collapse from chance{told}: keep more of them, {OFF}"
    return ""


def _real_refusal(manifest: Manifest) -> str:
    mix = manifest.mix
    if mix is None or mix.real_share >= mix.min_real_share:
        return ""
    return (
        f"{mix.real:,} of {mix.rows:,} rows are real ({percent(mix.real_share)}), and lineage.min_real_share = "
        f'{mix.min_real_share:g} is not met: give more real rows in `lineage.real`, or set `lineage.policy = "budget"`'
    )
