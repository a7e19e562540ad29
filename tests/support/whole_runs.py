"""What holds for every run that ended, and for the program that made it."""

from pathlib import Path

from core.runs.records import RunState
from core.runs.run_dir import RunDir
from core.storage.atomic_files import hash_file
from tests.support.forked import Program


def ended(process: Program, *codes: int) -> str:
    """The output of a program that ends with one of these exit codes."""
    out, _ = process.communicate()
    assert process.returncode in codes, out
    return out


def the_run(runs: Path) -> RunDir:
    """The only one in a folder."""
    (found,) = runs.glob("*/manifest.json")
    return RunDir(found.parent)


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
