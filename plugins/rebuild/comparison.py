"""Compares a release with the run that was made again from its recording: bytes of files, verdicts, counts; and names the first
difference. Makes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from core.config.recipe import list_differences
from core.runs.releases import Release
from core.runs.run_dir import RunDir
from core.runs.student_records import StudentRecord
from core.sample import FrozenModel
from core.storage.atomic_files import hash_file, read_record
from core.storage.recording import RecordedSample, read_recording
from flows.terminal.text_format import format_one_line
from plugins.rebuild.recording import (
    HELD_OUT,
    RECORDING,
    SAMPLES,
    VERDICTS,
    RecordedInputs,
    RecordedVerdict,
    read_environment,
    read_verdicts,
)
from plugins.rebuild.replayed_run import ReplayedRun

FileState = Literal["same", "repacked", "differs", "missing", "extra"]
SAME: Sequence[FileState] = ("same", "repacked")
INPUTS = f"{RECORDING}/inputs.json"
COMPARED = ("own.parquet", "pairs.parquet", SAMPLES, VERDICTS, HELD_OUT)
FACTS = {"counts", "funnel", "reasons", "usage", "similarities", "collapse", "collapse_parent", "dataset", "agents"}
"""What a manifest says of data and verdicts: all but names, times, costs, students and records of plugins."""
OF_ANY_REFERENCE = {"verdict", "kind", "unit", "generated", "dataset_documents", "reference_kind", "sameness", "spread"}
"""What a collapse record says without a number that its reference has a part in."""
WRITERS = {"polars", "pyarrow"}
"""The packages that write Parquet files. Each version compresses otherwise, and names itself in the file."""
STUDENT_FACTS = ("start", "parameters", "train_samples", "held_out_samples", "steps")
TOLERANCE = 0.005
"""Nats per token by which held-out losses of a student may differ that is trained again. Other Pythons, torches and threads: 0; a
row less: 0.016 or more (benchmarks/releases.md)."""
DIGITS = 9
"""Significant digits of a measured number that are compared: the last ones depend on the processor."""


class ComparedFile(FrozenModel):
    path: str
    state: FileState
    """`repacked`: equal rows, types and order, in the bytes of another version's writer. `missing`: not made again. `extra`: made
    again, and not in the release."""


class Rebuild(FrozenModel):
    """The result of a rebuild."""

    release: str
    equal: bool
    files: tuple[ComparedFile, ...]
    samples: int
    """Samples whose verdicts were compared."""
    difference: str | None
    """The first one, in a sentence without a full stop."""
    losses: tuple[float, float] | None = None
    """Held-out losses of the student, there and here, in nats per token; None where it was not asked for."""
    environment: tuple[str, ...]
    """What differs between the machine of the release and this one, a phrase each."""


def compare_rebuild(release: Release, again: ReplayedRun) -> Rebuild:
    """Raises StoreError, UsageError if a recording cannot be read."""
    students = (release.manifest.run.student, again.manifest.student)
    changed = _compare_environments(read_record(release.path / INPUTS, RecordedInputs).environment)
    if again.measured:
        names = [one.reference for one in (release.manifest.run.collapse, again.measured) if one]
        changed["reference"] = "collapse tested with {} there, {} here: verdicts compared, numbers not".format(*names)
    files = _compare_files(release, again.run, repacked=not WRITERS.isdisjoint(changed))
    differs = [file.path for file in files if file.state not in SAME]
    found = next(_find_differences(release, again, differs), None)
    if found and again.changed_sources:
        found = f"{again.changed_sources[0]} is not what the run read; then {found}"
    if found and changed:
        found = f"{found} ({', '.join(changed.values())})"
    return Rebuild(
        release=release.name, equal=found is None, files=tuple(files),
        samples=len(read_verdicts(release.path / VERDICTS)), difference=found, environment=tuple(changed.values()),
        losses=(students[0].loss_after, students[1].loss_after) if students[0] and students[1] else None,
    )  # fmt: skip


def is_compared(name: str) -> bool:
    """Whether a file of a release is made again. Cards are not: they have the time and cost of the run."""
    return name.startswith(("dataset/", "images/")) or name in COMPARED


def _compare_files(release: Release, run: RunDir, *, repacked: bool) -> list[ComparedFile]:
    """`repacked`: whether another version writes Parquet files here, so that their rows are compared."""
    released = {name for name in release.manifest.files if is_compared(name)}
    made = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    made = {name for name in made if is_compared(name)}
    states: dict[str, FileState] = dict.fromkeys(released - made, "missing")
    states.update(dict.fromkeys(made - released, "extra"))
    for name in released & made:
        there, here = release.path / name, run.path / name
        states[name] = "same" if hash_file(there) == hash_file(here) else "differs"
        if states[name] == "differs" and repacked and name.endswith(".parquet") and _has_equal_rows(there, here):
            states[name] = "repacked"
    return [ComparedFile(path=name, state=states[name]) for name in sorted(states)]


def _has_equal_rows(there: Path, here: Path) -> bool:
    """Whether two Parquet files have the same columns, types and values in the same order, digit by digit."""
    import polars as pl

    before, now = pl.read_parquet(there), pl.read_parquet(here)
    return before.schema == now.schema and [*map(repr, before.iter_rows())] == [*map(repr, now.iter_rows())]


def _compare_environments(recorded: Mapping[str, str]) -> dict[str, str]:
    """A phrase for each package with another version here, by its name. Packages that the run did not import are none of it."""
    here = read_environment(recorded.keys() - {"python", "system"})
    return {
        name: f"{name} {there} there, {here.get(name, 'not installed')} here"
        for name, there in sorted(recorded.items())
        if here.get(name) != there
    }


def _find_differences(release: Release, again: ReplayedRun, differs: Sequence[str]) -> Iterator[str]:
    """In the order of a run: what it read, what was asked and answered, what was decided, what was counted, what was written."""
    read, read_again = (read_record(one / INPUTS, RecordedInputs).files for one in (release.path, again.run.path))
    for name in sorted(read.keys() | read_again.keys()):
        if read.get(name) != read_again.get(name):
            yield f"{RECORDING}/files/{name} is not the file that the run read"
    if SAMPLES in differs:
        yield from _compare_samples(*(read_recording(one / SAMPLES) for one in (release.path, again.run.path)))
    if VERDICTS in differs:
        yield from _compare_verdicts(*(read_verdicts(one / VERDICTS) for one in (release.path, again.run.path)))
    yield from _compare_facts(release, again)
    if again.trained:
        yield from _compare_students(release.manifest.run.student, again.manifest.student)
    for name in differs:
        yield _explain_file(name, release.path / name, again.run.path / name)


def _compare_samples(there: Sequence[RecordedSample], here: Sequence[RecordedSample]) -> Iterator[str]:
    made = {one.sample: one for one in here}
    for recorded in there:
        name = f"sample {recorded.sample}"
        if (sample := made.pop(recorded.sample, None)) is None:
            yield f"{name} is recorded, and was not made again"
            continue
        for change in list_differences(recorded.seed, sample.seed):
            yield f"{name}: its seed differs at {change.where}: {format_one_line(change.what)}"
        for reply, again in zip(recorded.replies, sample.replies, strict=False):
            call = f"{name}: call {reply.attempt} of {reply.agent} at revision {reply.revision}"
            if (reply.agent, reply.revision, reply.attempt) != (again.agent, again.revision, again.attempt):
                yield f"{call} is recorded; {again.agent} was called at revision {again.revision} instead"
            for key in ("request", "asked", "reply", "reasoning", "finished", "teacher", "usage"):
                if getattr(reply, key) != getattr(again, key):
                    yield f"{call}: its {key} is not the recorded one"
        if len(recorded.replies) != len(sample.replies):
            yield f"{name}: {len(recorded.replies)} replies are recorded, and {len(sample.replies)} were needed"
    for index in made:
        yield f"sample {index} was made again, and is not recorded"


def _compare_verdicts(there: Sequence[RecordedVerdict], here: Sequence[RecordedVerdict]) -> Iterator[str]:
    made = {one.sample: one for one in here}
    for recorded in there:
        name = f"sample {recorded.sample}"
        if (again := made.pop(recorded.sample, None)) is None:
            yield f"{name} has a recorded verdict, and was not made again"
            continue
        for before, now in zip(recorded.verdicts, again.verdicts, strict=False):
            if before != now:
                there_is, here_is = (f"{one.check} {'passed' if one.passed else 'failed'}" for one in (before, now))
                yield f"{name}: the check {there_is} at revision {before.revision} there, {here_is} here: {now.evidence}"
        if (recorded.state, recorded.reason, recorded.detail) != (again.state, again.reason, again.detail):
            ends = (" ".join(filter(None, (one.state, one.reason, one.detail))) for one in (recorded, again))
            yield "{}: {} there, {} here".format(name, *map(format_one_line, ends))
        for change in list_differences(recorded.model_dump(mode="json"), again.model_dump(mode="json")):
            yield f"{name}: {change.where}: {format_one_line(change.what)}"
    for index in made:
        yield f"sample {index} was made again, and has no recorded verdict"


def _compare_facts(release: Release, again: ReplayedRun) -> Iterator[str]:
    run, manifest = release.manifest.run, again.manifest
    there, here = (_round(one.model_dump(mode="json", include=FACTS)) for one in (run, manifest))
    if again.measured:
        here["collapse"] |= _round(again.measured.model_dump(mode="json", include=OF_ANY_REFERENCE))
    for change in list_differences(there, here):
        yield f"manifest.json: run.{change.where}: {format_one_line(change.what)}"
    verdict = run.collapse.verdict if run.collapse else None
    for file, said in (("manifest.json", release.manifest.verdict), ("lineage.json", release.lineage.verdict)):
        if said != verdict:
            yield f"{file}: verdict: {said} there, {verdict} here"


def _compare_students(there: StudentRecord | None, here: StudentRecord | None) -> Iterator[str]:
    if there is None or here is None:
        yield "the student was not trained again: too few rows"
        return
    for name in STUDENT_FACTS:
        if getattr(there, name) != getattr(here, name):
            yield f"the student's {name} is {getattr(there, name)} there, {getattr(here, name)} here"
    for name in ("loss_before", "loss_after"):
        before, now = getattr(there, name), getattr(here, name)
        if not abs(before - now) <= TOLERANCE:
            yield f"the student's {name} is {before:.4f} there, {now:.4f} here, which is over {TOLERANCE} nats apart"


def _round(value: Any) -> Any:
    """Numbers with `DIGITS` digits, at any depth."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _round(inner) for key, inner in value.items()}
    return [_round(inner) for inner in value] if isinstance(value, list) else value


def _explain_file(name: str, there: Path, here: Path) -> str:
    """How a file differs: by which row, or only by its bytes."""
    if not here.exists():
        return f"{name} was not made again"
    if not there.exists():
        return f"{name} was made again, and is not in the release"
    if name.endswith(".parquet"):
        import polars as pl

        before, now = pl.read_parquet(there), pl.read_parquet(here)
        if before.schema != now.schema or len(before) != len(now):
            return f"{name}: {len(before)} rows of {before.columns} there, {len(now)} of {now.columns} here"
        rows = list(zip(before.iter_rows(named=True), now.iter_rows(named=True), strict=True))
    else:
        lines = (path.read_text(encoding="utf-8", errors="replace").splitlines() for path in (there, here))
        rows = [({"text": one}, {"text": two}) for one, two in zip(*lines, strict=False)]
    for number, (old, new) in enumerate(rows, 1):
        for change in list_differences(old, new):
            return f"{name}: row {number}: {change.where}: {format_one_line(change.what)}"
    return f"{name}: all {len(rows):,} rows are equal, and the bytes differ: another version wrote them"
