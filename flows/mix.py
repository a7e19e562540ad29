"""What a dataset is made of: the run's own kept samples, those of the releases that it builds on, and real rows, by the
policy of the recipe. Knows rows; knows neither forms nor how a release lies on disk.

A side is for good: what was held out of one generation is held out of all, and no prompt is ever on both sides. Real rows
are only trained on.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import StoreError, UsageError
from core.recipe import LineageConfig, Recipe, find_file
from core.release import Lineage, releases_of
from core.run import MixRecord, RunDir
from core.sample import Message
from core.store import flat, read_columns, write_parquet
from filters.base import Document
from flows.curated import Split, document_in, no_rows, split
from flows.formats import asked
from flows.rows import all_of, conversation_of

if TYPE_CHECKING:
    import polars as pl

TRAIN, VALIDATION = "train", "validation"
REAL = "real"
GIVEN = 4
"""One in so many words of a real text is given, and the student learns how it goes on."""
FEWEST_WORDS = 8
"""A real text with fewer has no beginning and no end to tell apart."""


class Earlier(NamedTuple):
    """The own rows of a release that the run builds on."""

    release: str
    rows: "pl.DataFrame"
    """As `kept_rows`, with the `side` of each."""
    pairs: "pl.DataFrame | None"
    """Its preference pairs, if it was to have any."""


@dataclass(frozen=True)
class Past:
    """What there was before the run."""

    earlier: list[Earlier]
    """From the first release to the parent."""
    real: "pl.DataFrame"

    @property
    def parent(self) -> str | None:
        return self.earlier[-1].release if self.earlier else None

    @property
    def pairs(self) -> "list[pl.DataFrame]":
        """The preference pairs of all releases."""
        return [one.pairs for one in self.earlier if one.pairs is not None]

    @cached_property
    def documents(self) -> list[Document]:
        """All that was ever released, for filters to check new samples against; a document's id is the sample's behind the
        name of its release.
        """
        return [document for one in self.earlier for document in _documents(one)]


class Mixed(NamedTuple):
    parts: Split
    record: MixRecord


def past_of(run: RunDir, recipe: Recipe, folder: Path) -> Past:
    """The releases that the run builds on, and the recipe's real rows.

    Raises:
        StoreError: if a release is damaged, or no longer in its lineage.
        UsageError: if the real rows cannot be read.
    """
    parent, found = run.read_parent(), []
    lineage = Lineage(releases_of(run.path.parent) / recipe.name)
    for one in lineage.find(parent.generation).line if parent else ():
        release = lineage.find(one.generation)
        release.check()
        if release.manifest.digest != one.digest:
            raise StoreError(f"{release.path}: is another release than the one that {run.name} builds on")
        pairs = release.path / run.pairs_file.name
        rows = read_columns(release.path / run.own_file.name)
        found.append(Earlier(release.name, rows, read_columns(pairs) if pairs.exists() else None))
    real = recipe.lineage.real
    return Past(found, real_rows(find_file(real, folder)) if real else no_rows())


def _documents(earlier: Earlier) -> Iterator[Document]:
    for row in earlier.rows.select("id", "messages", "question").iter_rows(named=True):
        yield document_in(f"{earlier.release}/{row['id']}", row["messages"], row["question"] or "")


def real_rows(path: Path) -> "pl.DataFrame":
    """The rows of a file of real conversations or texts, as `kept_rows`. Of a text, its beginning is what is asked, and
    how it goes on what is answered.

    Raises:
        UsageError: if it cannot be read, or has no row that can be learned from.
    """
    import polars as pl

    talks = list(all_of(path, _talk))
    ends = [asked([message.role for message in talk]) for talk in talks]
    found = [(i, talk, end) for i, (talk, end) in enumerate(zip(talks, ends, strict=True)) if 0 < end < len(talk)]
    if not found:
        raise UsageError(
            f"{path}: no row of lineage.real has a question and an answer, or {FEWEST_WORDS} words of `text`"
        )
    rows = [
        {"id": f"{REAL}-{i:06d}", "messages": [flat(turn.model_dump()) for turn in talk], "asked": end}
        for i, talk, end in found
    ]
    return pl.DataFrame(rows, schema=no_rows().schema)


def _talk(row: Mapping[str, Any]) -> list[Message]:
    """A row as a conversation; none, where it is too short a text."""
    if "text" not in row:
        return conversation_of(row)
    text = str(row["text"] or "")
    words = list(re.finditer(r"\S+", text))
    if len(words) < FEWEST_WORDS:
        return []
    cut = words[len(words) // GIVEN].start()
    asking = f"Go on with this text: {text[:cut].strip()}"
    return [Message(role="user", content=asking), Message(role="assistant", content=text[cut:].strip())]


def own_split(kept: "pl.DataFrame", past: Past, share: float, recipe: Recipe) -> Split:
    """The run's own rows: what asks the same as an earlier row is on the side of that, the others as `split` draws them."""
    import polars as pl

    known = _sides([*(one.rows for one in past.earlier), *_on_side(past.real, TRAIN)])
    sides = [known.get(prompt) for prompt in _prompts(kept)]
    free = kept.filter(pl.Series([side is None for side in sides], dtype=pl.Boolean))
    aside = set(split(free, share, recipe.seed, recipe.answers_per_seed).validation["id"])
    held_out = pl.Series(
        [side == VALIDATION or (side is None and name in aside) for side, name in zip(sides, kept["id"], strict=True)],
        dtype=pl.Boolean,
    )
    return Split(kept.filter(~held_out), kept.filter(held_out))


def _on_side(rows: "pl.DataFrame", side: str) -> "list[pl.DataFrame]":
    import polars as pl

    return [rows.with_columns(side=pl.lit(side))] if len(rows) else []


def _sides(frames: "Sequence[pl.DataFrame]") -> dict[int | None, str]:
    """The side of each prompt; held out, where it is on both."""
    found: dict[int | None, str] = {}
    for rows in frames:
        for prompt, side in zip(_prompts(rows), rows["side"].to_list(), strict=True):
            if prompt is not None and found.get(prompt) != VALIDATION:
                found[prompt] = side
    return found


def _prompts(rows: "pl.DataFrame") -> list[int | None]:
    """A hash of what is asked in each row, None where nothing is. The same within a process only."""
    import polars as pl

    prompt = pl.when(pl.col("asked") > 0).then(pl.col("messages").list.head("asked").hash())
    found: list[int | None] = rows.select(prompt.alias("prompt")).to_series().to_list()
    return found


def mix(own: Split, past: Past, config: LineageConfig, seed: int) -> Mixed:
    """All rows of the dataset by its policy: the real ones, those of each earlier release in their order, the run's own."""
    import polars as pl

    earlier = [] if config.policy == "replace" else past.earlier
    tagged = [one.rows.with_columns(origin=pl.lit(one.release)) for one in earlier]
    tagged.append(with_sides(own).with_columns(origin=pl.lit("own")))
    made = pl.concat(tagged, how="diagonal")
    known = _sides([*(one.rows for one in past.earlier), made])
    free = pl.Series([known.get(prompt) != VALIDATION for prompt in _prompts(past.real)], dtype=pl.Boolean)
    real = past.real.filter(free).with_columns(side=pl.lit(TRAIN), origin=pl.lit(REAL))
    if config.budget is not None:
        real, made = _drawn_down(real, made, config.budget, config.min_real_share, seed)
    rows = pl.concat([real, made], how="diagonal")
    counts = dict(rows.group_by("origin").len().iter_rows())
    record = MixRecord(
        policy=config.policy,
        parent=past.parent,
        own=counts.get("own", 0),
        earlier={one.release: counts[one.release] for one in earlier if one.release in counts},
        real=counts.get(REAL, 0),
        min_real_share=config.min_real_share,
    )
    parts = (rows.filter(pl.col("side") == side).drop("side", "origin") for side in (TRAIN, VALIDATION))
    return Mixed(Split(*parts), record)


def with_sides(parts: Split) -> "pl.DataFrame":
    """Both parts in one frame, with the `side` of each row."""
    import polars as pl

    return pl.concat(
        [rows.with_columns(side=pl.lit(side)) for side, rows in zip((TRAIN, VALIDATION), parts, strict=True)]
    )


def _drawn_down(
    real: "pl.DataFrame", made: "pl.DataFrame", budget: int, floor: float, seed: int
) -> "tuple[pl.DataFrame, pl.DataFrame]":
    """At most `budget` rows of both, drawn uniformly but for the floor of the real share, which fewer other rows keep."""
    if len(real) + len(made) <= budget and len(real) >= floor * (len(real) + len(made)):
        return real, made
    fair = round(budget * len(real) / (len(real) + len(made)))
    reals = min(len(real), max(fair, math.ceil(floor * budget - 1e-9)))
    others = min(len(made), budget - reals)
    if floor:
        others = min(others, math.floor(reals * (1 - floor) / floor + 1e-9))
    return _drawn(real, reals, seed), _drawn_by_side(made, others, seed)


def _drawn_by_side(rows: "pl.DataFrame", count: int, seed: int) -> "pl.DataFrame":
    """`count` rows in their order, of both sides in proportion, one at least held out where any is."""
    import polars as pl

    sides = [rows.filter(pl.col("side") == side) for side in (TRAIN, VALIDATION)]
    held_out = round(count * len(sides[1]) / len(rows)) if len(rows) else 0
    if len(sides[1]) and count > 1:
        held_out = max(1, held_out)
    held_out = max(held_out, count - len(sides[0]))
    return pl.concat([_drawn(sides[0], count - held_out, seed), _drawn(sides[1], held_out, seed)])


def _drawn(rows: "pl.DataFrame", count: int, seed: int) -> "pl.DataFrame":
    return rows[sorted(Random(f"mix {seed}").sample(range(len(rows)), count))]


def write_own(run: RunDir, own: Split) -> None:
    """Write the run's own rows, for a release and for those after it."""
    write_parquet(run.own_file, with_sides(own))
