"""The stages of a run after its samples are made, as plain functions on its directory: assess, package, distill. Knows no
Prefect.

Each reads what the stage before left on disk and writes its own part whole, so that any of them can be run again.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import UsageError
from core.recipe import CollapseConfig, Recipe, StudentConfig, find_file
from core.run import CollapseRecord, Manifest, RunDir, StudentRecord
from core.sample import Message
from core.store import write_parquet, write_text, written_whole
from flows.curated import Split
from flows.formats import conversational
from flows.report import dataset_card


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


def package(run: RunDir, manifest: Manifest, recipe: Recipe, parts: Split) -> None:
    """Write `dataset/`: train and validation Parquet in `messages` form, and the dataset card."""
    with written_whole(run.dataset) as folder:
        folder.mkdir()
        for name, rows in zip(("train", "validation"), parts, strict=True):
            write_parquet(folder / f"{name}.parquet", conversational(rows))
        write_text(folder / "README.md", dataset_card(manifest, recipe, len(parts.train), len(parts.validation)))


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
