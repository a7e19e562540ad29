"""The stages of a run as plain functions on its directory: curate, assess, package, distill. Knows no Prefect.

Each reads what the stage before left on disk and writes its own part whole, so that any of them can be run again.
"""

import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import RunFailed, UsageError
from core.recipe import CollapseConfig, FilterConfig, Recipe, StudentConfig, find_file
from core.run import CollapseRecord, Counts, Manifest, RunDir, StudentRecord
from core.sample import Message, Reason, Sample, State, Usage
from core.store import counted, read_samples, write_parquet, write_samples, write_text, written_whole
from filters import apply_filters
from filters.base import Document, Drop
from flows.report import dataset_card


class Curated(NamedTuple):
    kept: list[Sample]
    dropped: list[Sample]
    """Dropped and failed samples, in the order of their ids."""
    verified: int
    """How many the agents had kept, before the filters."""


def read_made(run: RunDir) -> list[Sample]:
    """Every sample of the run that is finished, as the last stage left it, in the order of ids."""
    if run.kept_file.exists() and run.dropped_file.exists():
        curated = read_curated(run)
        return sorted([*curated.kept, *curated.dropped], key=lambda sample: sample.id)
    return read_shards(run)


def find_sample(samples: Sequence[Sample], name: str, run: RunDir) -> Sample:
    """The sample called `name`, or whose id ends in that number.

    Raises:
        UsageError: saying which ids there are.
    """
    wanted = {name, f"{run.name.rpartition('-')[2]}-{name.zfill(6)}"}
    for sample in samples:
        if sample.id in wanted:
            return sample
    there = f"ids go from {samples[0].id} to {samples[-1].id}" if samples else "no sample is finished yet"
    raise UsageError(f"{name}: {run.name} has no such sample; {there}")


def read_shards(run: RunDir) -> list[Sample]:
    return [sample for file in sorted((run.path / "shards").glob("*.parquet")) for sample in read_samples(file)]


def curate(run: RunDir, filters: Sequence[FilterConfig]) -> Curated:
    """Filter what the agents kept over the whole run, and write kept and dropped samples."""
    made = read_shards(run)
    verified = [sample for sample in made if sample.state == State.kept]
    result = apply_filters([Document(sample.id, sample.answer) for sample in verified], filters)
    drops = {drop.id: drop for drop in result.dropped}
    kept, dropped = [], []
    for sample in made:
        if drop := drops.get(sample.id):
            dropped.append(sample.dropped(drop.reason, drop.detail))
        elif sample.state == State.kept:
            kept.append(sample)
        else:
            dropped.append(sample)
    write_samples(run.kept_file, kept)
    write_samples(run.dropped_file, dropped, {drop.id: _drop_columns(drop) for drop in drops.values()})
    return Curated(kept, dropped, len(verified))


def read_curated(run: RunDir) -> Curated:
    """What `curate` left on disk."""
    kept, dropped = read_samples(run.kept_file), read_samples(run.dropped_file)
    by_agents = {Reason.provider, Reason.contract, Reason.critic, Reason.verifier}
    return Curated(kept, dropped, len(kept) + sum(sample.reason not in by_agents for sample in dropped))


def _drop_columns(drop: Drop) -> dict[str, str | float | None]:
    return {"filter": drop.filter, "score": drop.score, "duplicate_of": drop.duplicate_of}


def reason_of(sample: Sample) -> str:
    """Why a sample is not kept, as counted in the manifest: the check or rubric stands behind a colon."""
    if sample.reason in (Reason.verifier, Reason.critic):
        return f"{sample.reason}:{sample.detail}"
    return (
        f"{sample.reason}:{sample.detail.partition(':')[0]}" if sample.reason == Reason.contract else f"{sample.reason}"
    )


def count(manifest: Manifest, curated: Curated, seeds: int) -> None:
    """Fill the manifest's counts, funnel, reasons and usage."""
    everything = [*curated.kept, *curated.dropped]
    failed = sum(sample.state == State.failed for sample in everything)
    manifest.counts = Counts(
        candidates=len(everything),
        kept=len(curated.kept),
        dropped=len(curated.dropped) - failed,
        failed=failed,
    )
    manifest.funnel = [
        ("seeds", seeds),
        ("candidates", len(everything)),
        ("verified", curated.verified),
        ("kept", len(curated.kept)),
    ]
    manifest.reasons = counted(reason_of(sample) for sample in curated.dropped)
    manifest.usage = sum((sample.usage for sample in everything), Usage())


def check_failed(manifest: Manifest, limit: float) -> None:
    """Raises RunFailed where more samples failed than the recipe allows, naming the commonest fault."""
    counts = manifest.counts
    if counts.candidates and counts.failed / counts.candidates > limit:
        faults = {reason: n for reason, n in manifest.reasons.items() if reason.startswith(("provider", "contract"))}
        raise RunFailed(
            f"{counts.failed} of {counts.candidates} samples failed, more than max_failed = {limit:g} allows; "
            f"most often {next(iter(faults), 'for no recorded reason')}"
        )


def assess(answers: Sequence[str], config: CollapseConfig, folder: Path, seed: int) -> CollapseRecord:
    """Collapse metrics of `answers` beside the reference.

    Raises:
        UsageError: if the reference cannot be read.
    """
    from filters.collapse import measure

    path = find_file(config.reference, folder)
    return measure(answers, read_texts(path), name=config.reference, seed=seed)


def read_texts(path: Path) -> list[str]:
    """The `text` of each line of a JSONL file."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [row["text"] for row in rows]
    except OSError as error:
        raise UsageError(f"{path}: the reference cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: each line must be a JSON object with a `text`: {error}") from None


class Split(NamedTuple):
    train: list[Sample]
    validation: list[Sample]


def split(kept: Sequence[Sample], share: float, seed: int) -> Split:
    """Set `share` of the samples aside, at least one of two or more; drawn by `seed`, both parts in their old order."""
    size = max(1, round(len(kept) * share)) if len(kept) > 1 else 0
    aside = set(random.Random(seed).sample(range(len(kept)), size))
    return Split(
        [sample for i, sample in enumerate(kept) if i not in aside],
        [sample for i, sample in enumerate(kept) if i in aside],
    )


def package(run: RunDir, manifest: Manifest, recipe: Recipe, parts: Split) -> None:
    """Write `dataset/`: train and validation Parquet in `messages` form, and the dataset card."""
    with written_whole(run.dataset) as folder:
        folder.mkdir()
        for name, samples in (("train", parts.train), ("validation", parts.validation)):
            write_messages(folder / f"{name}.parquet", samples)
        card = dataset_card(manifest, recipe, len(parts.train), len(parts.validation))
        write_text(folder / "README.md", card)


def write_messages(path: Path, samples: Iterable[Sample]) -> None:
    import polars as pl

    message = pl.Struct({"role": pl.String, "content": pl.String})
    rows = [{"id": s.id, "messages": [m.model_dump() for m in s.candidate.messages]} for s in samples]
    write_parquet(path, pl.DataFrame(rows, schema={"id": pl.String, "messages": pl.List(message)}))


def distill(
    train: Sequence[Sequence[Message]], held_out: Sequence[Sequence[Message]] | None, config: StudentConfig, out: Path,
    *, seed: int, progress: Callable[[str], None],
) -> StudentRecord:  # fmt: skip
    """Train the student. Raises UsageError where the extra `train` is not installed."""
    try:
        from students.train import distill as train_student
    except ModuleNotFoundError as error:
        raise UsageError(
            f"training a student needs the extra `train` ({error.name} is missing): run `make install`"
        ) from None
    return train_student(train, config, out, seed=seed, progress=progress, held_out=held_out)


class Stopwatch:
    """Adds the wall time of a stage to the manifest's, so that a resumed run counts all of its time."""

    def __init__(self, manifest: Manifest, stage: str) -> None:
        self._seconds = manifest.seconds
        self._stage = stage

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        spent = time.monotonic() - self._began
        self._seconds[self._stage] = round(self._seconds.get(self._stage, 0.0) + spent, 1)
