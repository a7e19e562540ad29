"""The rows of a dataset: the run's own kept samples, those of earlier releases, and real rows, by the policy of the recipe. Knows
rows; knows neither forms nor the files of a release.

Sides are permanent: a row held out of one generation is held out of all, and no prompt, image or passage is on both sides. Real
rows, and rows that a promoted student wrote, are used for training only.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from core.config.recipe import LineageConfig, Recipe
from core.errors import StoreError, UsageError
from core.project_files import find_referenced_file
from core.runs.lineage import Lineage
from core.runs.records import MixRecord
from core.runs.releases import locate_releases
from core.runs.run_dir import RunDir
from core.sample import Message
from core.storage.atomic_files import write_parquet
from core.storage.sample_files import complete_turn_fields, drop_empty_turn_fields, flatten_message, read_sample_columns
from filters.base import Document
from flows.data.curated_run import (
    TRAIN,
    VALIDATION,
    DatasetSplit,
    SharedKey,
    build_conversation_document,
    create_empty_rows,
    list_shared_keys,
    split_rows,
)
from flows.data.dataset_formats import count_prompt_turns
from flows.rows.dataset_rows import read_all_rows
from flows.rows.row_forms import read_row_conversation

if TYPE_CHECKING:
    import polars as pl

REAL_ORIGIN = "real"
WORDS_PER_GIVEN_WORD = 4
"""The first quarter of a real text is the prompt; the student learns the rest."""
FEWEST_WORDS = 8
"""A real text with fewer words is not split."""


class EarlierRelease(NamedTuple):
    """The own rows of a release that the run builds on."""

    release: str
    rows: "pl.DataFrame"
    """Rows as in `read_kept_rows`, with the `side` of each."""
    pairs: "pl.DataFrame | None"
    """Preference pairs, if the recipe asked for any."""
    folder: Path | None = None
    """Where its images are."""


@dataclass(frozen=True)
class MixtureSources:
    """Rows that existed before the run."""

    releases: list[EarlierRelease]
    """From the first release to the parent."""
    real: "pl.DataFrame | None" = None
    """The recipe's real rows."""

    @cached_property
    def real_rows(self) -> "pl.DataFrame":
        return create_empty_rows() if self.real is None else self.real

    @property
    def parent(self) -> str | None:
        return self.releases[-1].release if self.releases else None

    @property
    def pairs(self) -> "list[pl.DataFrame]":
        """The preference pairs of all releases."""
        return [release.pairs for release in self.releases if release.pairs is not None]

    @property
    def conversations(self) -> list[list[dict[str, Any]]]:
        """All released conversations, each as its messages on disk."""
        return [messages for release in self.releases for messages in release.rows["messages"].to_list()]

    @cached_property
    def documents(self) -> list[Document]:
        """All released documents, for filters of new samples; the id is the release's name and the sample's id."""
        return [
            build_conversation_document(
                f"{release.release}/{row['id']}", row["messages"], row["question"] or "", image_folder=release.folder
            )
            for release in self.releases
            for row in release.rows.select("id", "messages", "question").iter_rows(named=True)
        ]


class DatasetMixture(NamedTuple):
    parts: DatasetSplit
    record: MixRecord


def read_mixture_sources(run: RunDir, recipe: Recipe, folder: Path) -> MixtureSources:
    """The releases that the run builds on, and the recipe's real rows.

    Raises:
        StoreError: if a release is damaged, or missing from its lineage.
        UsageError: if the real rows cannot be read.
    """
    parent, releases = run.read_parent(), []
    lineage = Lineage(locate_releases(run.path.parent) / recipe.name)
    for ancestor in lineage.find_generation(parent.generation).ancestry if parent else ():
        release = lineage.find_generation(ancestor.generation)
        release.verify_files()
        if release.manifest.digest != ancestor.digest:
            raise StoreError(f"{release.path}: is another release than the one that {run.name} builds on")
        pairs = release.path / run.pairs_file.name
        rows = complete_turn_fields(read_sample_columns(release.path / run.own_rows_file.name))
        released = complete_turn_fields(read_sample_columns(pairs)) if pairs.exists() else None
        releases.append(EarlierRelease(release.name, rows, released, release.path))
    real = recipe.lineage.real
    return MixtureSources(releases, _read_real_rows(find_referenced_file(real, folder)) if real else None)


def _read_real_rows(path: Path) -> "pl.DataFrame":
    """The rows of a file of real conversations or texts, as in `read_kept_rows`. The beginning of a text is the question, its
    rest the answer.

    Raises:
        UsageError: if the file cannot be read, or has no usable row.
    """
    import polars as pl

    conversations = list(read_all_rows(path, _build_real_conversation))
    ends = [count_prompt_turns([message.role for message in turns]) for turns in conversations]
    usable = [
        (i, turns, end) for i, (turns, end) in enumerate(zip(conversations, ends, strict=True)) if 0 < end < len(turns)
    ]
    if not usable:
        raise UsageError(
            f"{path}: no row of lineage.real has a question and an answer, or {FEWEST_WORDS} words of `text`"
        )
    rows = [
        {
            "id": f"{REAL_ORIGIN}-{i:06d}",
            "messages": [flatten_message(turn.model_dump()) for turn in turns],
            "asked": end,
        }
        for i, turns, end in usable
    ]
    return pl.DataFrame(rows, schema=create_empty_rows().schema)


def _build_real_conversation(row: Mapping[str, Any]) -> list[Message]:
    """A row as a conversation; empty for a text that is too short."""
    if "text" not in row:
        return read_row_conversation(row)
    text = str(row["text"] or "")
    words = list(re.finditer(r"\S+", text))
    if len(words) < FEWEST_WORDS:
        return []
    cut = words[len(words) // WORDS_PER_GIVEN_WORD].start()
    question = f"Go on with this text: {text[:cut].strip()}"
    return [Message(role="user", content=question), Message(role="assistant", content=text[cut:].strip())]


def split_own_rows(kept: "pl.DataFrame", past: MixtureSources, share: float, recipe: Recipe) -> DatasetSplit:
    """The run's own rows by `split_rows`: a row with an earlier row's prompt, image or passage is on its side. Of a promoted
    generator, all are for training, and rows that share one with a held-out row are left out.
    """
    import polars as pl

    frames = [release.rows for release in past.releases]
    if len(past.real_rows):
        frames.append(past.real_rows.with_columns(side=pl.lit(TRAIN)))
    sides = _find_sides(frames)
    if recipe.generator_teacher.student_of:
        return DatasetSplit(_drop_held_out(kept, sides), kept.clear())
    return split_rows(kept, share, recipe.seed, recipe.answers_per_seed, sides)


def _find_sides(frames: "Sequence[pl.DataFrame]") -> dict[SharedKey, str]:
    """The side of each prompt, image and passage; held out if it is on both."""
    sides: dict[SharedKey, str] = {}
    for rows in frames:
        for keys, side in zip(list_shared_keys(rows), rows["side"].to_list(), strict=True):
            sides.update({key: side for key in keys if sides.get(key) != VALIDATION})
    return sides


def _drop_held_out(rows: "pl.DataFrame", sides: Mapping[SharedKey, str]) -> "pl.DataFrame":
    """The rows that share nothing with a held-out row."""
    import polars as pl

    free = [all(sides.get(key) != VALIDATION for key in keys) for keys in list_shared_keys(rows)]
    return rows.filter(pl.Series(free, dtype=pl.Boolean))


def mix_dataset(
    own: DatasetSplit, past: MixtureSources, config: LineageConfig, seed: int, *, promoted: bool = False
) -> DatasetMixture:
    """All rows of the dataset by its policy: real rows, rows of each earlier release in order, the run's own rows. With a
    `promoted` generator, which has no held-out rows, `replace` takes those of the earlier releases.
    """
    import polars as pl

    earlier = past.releases
    if config.policy == "replace":
        held_out = pl.col("side") == VALIDATION
        earlier = [one._replace(rows=one.rows.filter(held_out)) for one in past.releases] if promoted else []
    tagged = [release.rows.with_columns(origin=pl.lit(release.release)) for release in earlier]
    tagged.append(join_sides(own).with_columns(origin=pl.lit("own")))
    synthetic = pl.concat(tagged, how="diagonal")
    sides = _find_sides([*(release.rows for release in past.releases), synthetic])
    real = _drop_held_out(past.real_rows, sides).with_columns(side=pl.lit(TRAIN), origin=pl.lit(REAL_ORIGIN))
    if config.budget is not None:
        real, synthetic = _sample_to_budget(real, synthetic, config.budget, config.min_real_share, seed)
    rows = pl.concat([real, synthetic], how="diagonal")
    counts = dict(rows.group_by("origin").len().iter_rows())
    record = MixRecord(
        policy=config.policy,
        parent=past.parent,
        own=counts.get("own", 0),
        earlier={release.release: counts[release.release] for release in earlier if release.release in counts},
        real=counts.get(REAL_ORIGIN, 0),
        min_real_share=config.min_real_share,
    )
    parts = (rows.filter(pl.col("side") == side).drop("side", "origin") for side in (TRAIN, VALIDATION))
    return DatasetMixture(DatasetSplit(*parts), record)


def join_sides(parts: DatasetSplit) -> "pl.DataFrame":
    """Both parts in one table, with the `side` of each row."""
    import polars as pl

    return pl.concat(
        [rows.with_columns(side=pl.lit(side)) for side, rows in zip((TRAIN, VALIDATION), parts, strict=True)]
    )


def _sample_to_budget(
    real: "pl.DataFrame", synthetic: "pl.DataFrame", budget: int, min_share: float, seed: int
) -> "tuple[pl.DataFrame, pl.DataFrame]":
    """At most `budget` rows of both, in order, drawn uniformly, except that fewer synthetic rows are drawn to keep `min_share`
    real.
    """
    import polars as pl

    if len(real) + len(synthetic) <= budget and len(real) >= min_share * (len(real) + len(synthetic)):
        return real, synthetic
    proportional = round(budget * len(real) / (len(real) + len(synthetic)))
    reals = min(len(real), max(proportional, math.ceil(min_share * budget - 1e-9)))
    others = min(len(synthetic), budget - reals)
    if min_share:
        others = min(others, math.floor(reals * (1 - min_share) / min_share + 1e-9))

    # Of synthetic rows, both sides in proportion; at least one held out if any row is.
    train, validation = (synthetic.filter(pl.col("side") == side) for side in (TRAIN, VALIDATION))
    held_out = round(others * len(validation) / len(synthetic)) if len(synthetic) else 0
    if len(validation) and others > 1:
        held_out = max(1, held_out)
    held_out = max(held_out, others - len(train))
    parts = [_sample_rows(train, others - held_out, seed), _sample_rows(validation, held_out, seed)]
    return _sample_rows(real, reals, seed), pl.concat(parts)


def _sample_rows(rows: "pl.DataFrame", count: int, seed: int) -> "pl.DataFrame":
    return rows[sorted(Random(f"mix {seed}").sample(range(len(rows)), count))]


def write_own_rows(run: RunDir, own: DatasetSplit) -> None:
    """Write the run's own rows, for its release and later generations."""
    write_parquet(run.own_rows_file, drop_empty_turn_fields(join_sides(own)))
