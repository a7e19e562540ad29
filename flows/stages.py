"""The stages of a run after its samples are made, as plain functions on its directory: assess, package, distill. Knows no
Prefect.

Each reads what the stage before left on disk and writes its own part whole, so that any of them can be run again.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UsageError
from core.recipe import CollapseConfig, Recipe, find_file
from core.run import CollapseRecord, FormatRecord, Manifest, RunDir, StudentRecord
from core.sample import Message
from core.store import write_parquet, write_text, written_whole
from core.student_config import StudentConfig
from flows.curated import Split, made_samples
from flows.formats import Written, features, lines, written
from flows.report import dataset_card
from flows.rows import documents

if TYPE_CHECKING:
    import polars as pl


NULLS = "nulls"
"""The folder of the runs' cache for what real text differs by from itself (`filters.null`)."""


def assess(
    answers: Sequence[str],
    config: CollapseConfig,
    folder: Path,
    seed: int,
    cache: Path | None = None,
    before: Sequence[CollapseRecord] = (),
) -> CollapseRecord:
    """The verdict on `answers` beside the reference, with its metrics; the reference's null is kept in `cache`. `before` are
    the verdicts on the generations that they build on.

    Raises:
        UsageError: if the reference cannot be read.
    """
    from filters.collapse import measure

    path = find_file(config.reference, folder)
    nulls = cache / NULLS if cache else None
    return measure(answers, read_texts(path), name=config.reference, seed=seed, cache=nulls, before=before)


def read_texts(path: Path) -> list[str]:
    """What each row of the reference says."""
    try:
        return [document.text for document in documents(path)]
    except UsageError as error:
        raise UsageError(f"the reference: {error}") from None


def package(
    run: RunDir, manifest: Manifest, recipe: Recipe, parts: Split, released: "Sequence[pl.DataFrame]" = ()
) -> list[str]:
    """Write `dataset/`: each form of the recipe as Parquet, and as JSONL if it is wanted, with the dataset card. `released`
    are the preference pairs of earlier releases; those of them are taken whose chosen sample is in `parts`.

    Returns what is missing, a sentence each.
    """
    manifest.formats, manifest.pairs, missing = [], None, []
    with written_whole(run.dataset) as folder:
        folder.mkdir()
        for name in recipe.dataset.formats:
            form = written(name, _pairs(run, manifest, recipe, parts, released) if name == "preference" else parts)
            manifest.formats.append(_record(name, form))
            _write_form(folder, manifest.formats, form, jsonl=recipe.dataset.jsonl)
            if form.left_out and not any(map(len, form.parts)):
                missing.append(f"{name} can hold none of the kept samples: they call tools, or do not go turn by turn")
        write_text(folder / "README.md", dataset_card(manifest, recipe, len(parts.train), len(parts.validation)))
    if manifest.pairs and not manifest.pairs.total:
        from flows.pairs import no_pairs

        missing.append(no_pairs(manifest.pairs, recipe.preference))
    return missing


def _pairs(
    run: RunDir, manifest: Manifest, recipe: Recipe, parts: Split, released: "Sequence[pl.DataFrame]"
) -> "list[pl.DataFrame]":
    """Preference pairs, on the side that their prompts are on; the counts of the run's own go into the manifest."""
    import polars as pl

    from agents.families import FAMILIES
    from flows.pairs import find_pairs, parted

    found = find_pairs(made_samples(run), FAMILIES[recipe.family], recipe)
    own, manifest.pairs = parted(found, set(parts.validation["id"]))
    write_parquet(run.pairs_file, pl.concat(own))
    every = pl.concat([*released, *own])
    return [every.filter(pl.col("chosen_id").is_in(rows["id"].to_list())) for rows in parts]


def _record(name: str, form: Written) -> FormatRecord:
    train, validation = form.parts
    return FormatRecord(
        name=name, columns=train.columns, train=len(train), validation=len(validation), left_out=form.left_out,
        features=features(form),
    )  # fmt: skip


def _write_form(folder: Path, formats: Sequence[FormatRecord], form: Written, *, jsonl: bool) -> None:
    """Parquet at the top for the first form, in a folder of its name for another; JSONL in that folder always, since
    whoever reads the top as a dataset would find every row twice.
    """
    own = folder / formats[-1].name
    for side, rows in zip(("train", "validation"), form.parts, strict=True):
        write_parquet((folder if len(formats) == 1 else own) / f"{side}.parquet", rows)
        if jsonl:
            with written_whole(own / f"{side}.jsonl") as partial, partial.open("w", encoding="utf-8") as file:
                file.writelines(lines(rows, form.texts))


def distill(
    train: Sequence[Sequence[Message]], held_out: Sequence[Sequence[Message]] | None, config: StudentConfig, out: Path,
    *, seed: int, progress: Callable[[str], None], rejected: Sequence[Sequence[Message]] = (),
) -> StudentRecord:  # fmt: skip
    """Train the student; `rejected` are worse answers to the same prompts, for `dpo`.

    Raises:
        UsageError: where the extra `train` is not installed.
    """
    try:
        from students.train import distill as train_student
    except ModuleNotFoundError as error:
        raise UsageError(
            f"training a student needs the extra `train` ({error.name} is missing): run `make install`"
        ) from None
    return train_student(train, config, out, seed=seed, progress=progress, held_out=held_out, rejected=rejected)


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
