"""A whole run with a teacher at a strict server."""

from collections import Counter
from pathlib import Path

from flows.data.curated_run import read_finished_samples
from tests.support.produce_run import produce_run
from tests.support.strict_server import StrictServer


def check_strict_run(served: StrictServer, teacher: str, runs: Path, *settings: str, thinks_unasked: bool) -> None:
    """The server rejects nothing. `teacher` is the inside of a teacher's table."""
    table = f"teachers.main={{{teacher},max_retries=0}}"
    run, missing = produce_run(str(runs), "smoke", [table, "samples=20", "cache_mb=0", *settings])
    made = list(read_finished_samples(run))
    reasons = Counter(sample.reason or "kept" for sample in made)
    assert reasons["provider"] == reasons["contract"] == 0, [sample.detail for sample in made]
    assert reasons["kept"] > 0
    assert not missing.sentences
    limits = {find_limit(request.body) for request in served.requests}
    assert all(limit > 160 for limit in limits) == thinks_unasked, "models that think unasked have tokens for it"


def find_limit(body: dict[str, object]) -> int:
    generation = body.get("generationConfig")
    inner = generation if isinstance(generation, dict) else {}
    found = body.get("max_tokens") or body.get("max_completion_tokens") or inner.get("maxOutputTokens")
    assert isinstance(found, int)
    return found
