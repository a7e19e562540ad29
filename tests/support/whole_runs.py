"""What holds for every run that ended."""

from core.runs.records import RunState
from core.runs.run_dir import RunDir
from core.storage.atomic_files import hash_file


def check_whole(run: RunDir, state: RunState = RunState.done) -> None:
    """Counts add up, every artifact has its hash, and nothing half-made is left."""
    manifest = run.read_manifest()
    assert manifest.state == state
    counts = manifest.counts
    assert counts.candidates == counts.kept + counts.dropped + counts.failed
    assert sum(manifest.reasons.values()) == counts.dropped + counts.failed
    assert manifest.files == {
        str(f.relative_to(run.path)): hash_file(f) for f in map(run.path.joinpath, manifest.files)
    }
    left = [f for f in run.path.rglob("*") if ".partial" in f.name]
    left += run.path.rglob("*.calls.jsonl") if state is RunState.done else []
    assert left == []
