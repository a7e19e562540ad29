"""What the filters made of a run's samples: written shard by shard, so that a large run needs no more memory than the text
that filters compare. Knows files and filters; knows no Prefect and no teacher.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import UsageError
from core.recipe import Recipe
from core.run import Counts, RunDir
from core.sample import Message, Reason, Sample, State, Usage, index_of
from core.store import DROP_COLUMNS, counted, message_of, message_type, read_columns, read_samples, write_parquet
from filters import apply_filters
from filters.base import Document, Drop

if TYPE_CHECKING:
    import polars as pl


class Curated(NamedTuple):
    """How many samples ended where."""

    counts: Counts
    verified: int
    """How many the agents had kept, before the filters."""
    reasons: dict[str, int]
    """Dropped and failed samples by `reason:detail`."""
    usage: Usage


def curate(run: RunDir, recipe: Recipe) -> Curated:
    """Filter what the agents kept over the whole run, and write kept and dropped samples. With `keep`, so many are kept as
    it says, the first in the order of the run.
    """
    documents = list(_verified(run))
    result = apply_filters(documents, recipe.filters)
    drops = {drop.id: drop for drop in result.dropped}
    if recipe.keep:
        gap = _first_missing(run, recipe)
        wanted = [document.id for document in result.kept if index_of(document.id) < gap][: recipe.keep]
        extra = {document.id for document in result.kept} - set(wanted)
        drops |= {name: _surplus(name, recipe.keep) for name in extra}
    tallies = [_write(run, index, drops) for index in run.shards()]
    return _summed(tallies, len(documents))


def _first_missing(run: RunDir, recipe: Recipe) -> int:
    """The lowest index without a sample: only those before it are sure to be the first, however many were made at once."""
    there = {index_of(name) for index in run.shards() for name in read_columns(run.shard_file(index), ("id",))["id"]}
    return next((index for index in range(recipe.samples) if index not in there), recipe.samples)


def _surplus(sample: str, keep: int) -> Drop:
    return Drop(id=sample, filter="keep", reason=Reason.surplus, detail=f"{keep} before it are kept")


def _verified(run: RunDir) -> Iterator[Document]:
    for index in run.shards():
        for row in read_columns(run.shard_file(index), ("id", "state", "messages")).iter_rows(named=True):
            if row["state"] == State.kept:
                yield Document(row["id"], said_in(row["messages"]))


def said_in(messages: Sequence[dict[str, Any]]) -> str:
    """What the assistant says, all turns joined by a newline, as `Candidate.answer`."""
    return "\n".join(message_of(flat).text for flat in messages if flat["role"] == "assistant")


class _Tally(NamedTuple):
    """Of one shard."""

    states: dict[str, int]
    reasons: list[str]
    usage: Usage


def _write(run: RunDir, index: int, drops: dict[str, Drop]) -> _Tally:
    import polars as pl

    shard = read_columns(run.shard_file(index))
    mine = [drops[name] for name in shard["id"] if name in drops]
    why = pl.DataFrame(
        [
            {"id": d.id, "new_reason": d.reason, "new_detail": d.detail, **d.model_dump(include=set(DROP_COLUMNS))}
            for d in mine
        ],
        schema={"id": pl.String, "new_reason": pl.String, "new_detail": pl.String, "filter": pl.String,
                "score": pl.Float64, "duplicate_of": pl.String},
    )  # fmt: skip
    judged = shard.join(why, on="id", how="left", maintain_order="left").with_columns(
        state=pl.when(pl.col("new_reason").is_null()).then("state").otherwise(pl.lit(State.dropped.value)),
        reason=pl.coalesce("new_reason", "reason"),
        detail=pl.coalesce("new_detail", "detail"),
    )
    kept = judged["state"] == State.kept
    write_parquet(run.kept_file(index), judged.filter(kept).select(shard.columns))
    dropped = judged.filter(~kept).select(*shard.columns, *DROP_COLUMNS)
    write_parquet(run.dropped_file(index), dropped)
    usage = judged["usage"].struct.unnest().sum().row(0, named=True)
    reasons = [reason_of(reason, detail) for reason, detail in dropped.select("reason", "detail").iter_rows()]
    return _Tally(counted(judged["state"]), reasons, Usage(**usage))


def reason_of(reason: str, detail: str) -> str:
    """Why a sample is not kept, as counted in the manifest: the check or rubric stands behind a colon."""
    if reason in (Reason.verifier, Reason.critic):
        return f"{reason}:{detail}"
    return f"{reason}:{detail.partition(':')[0]}" if reason == Reason.contract else reason


def _summed(tallies: Sequence[_Tally], verified: int) -> Curated:
    states = {state: sum(tally.states.get(state, 0) for tally in tallies) for state in State}
    counts = Counts(
        candidates=sum(states.values()),
        kept=states[State.kept],
        dropped=states[State.dropped],
        failed=states[State.failed],
    )
    reasons = counted(reason for tally in tallies for reason in tally.reasons)
    return Curated(counts, verified, reasons, sum((tally.usage for tally in tallies), Usage()))


def kept_samples(run: RunDir) -> Iterator[Sample]:
    return (sample for index in run.shards() for sample in _samples(run.kept_file(index)))


def dropped_samples(run: RunDir) -> Iterator[Sample]:
    """Dropped and failed ones."""
    return (sample for index in run.shards() for sample in _samples(run.dropped_file(index)))


def _samples(path: Path) -> list[Sample]:
    return read_samples(path) if path.exists() else []


def made_samples(run: RunDir) -> Iterator[Sample]:
    """Every finished sample of the run as the last stage left it, in the order of ids."""
    for index in run.shards():
        yield from _made(run, index)


def _made(run: RunDir, index: int) -> list[Sample]:
    """Of one shard: as the filters left it, and as the agents did what came after they last ran."""
    judged = [*_samples(run.kept_file(index)), *_samples(run.dropped_file(index))]
    ids = {sample.id for sample in judged}
    newer = [sample for sample in read_samples(run.shard_file(index)) if sample.id not in ids]
    return sorted([*judged, *newer], key=lambda sample: sample.id)


def find_sample(run: RunDir, name: str) -> Sample:
    """The sample called `name`, or whose id ends in that number.

    Raises:
        UsageError: saying which ids there are.
    """
    wanted = {name, f"{run.name.rpartition('-')[2]}-{name.zfill(6)}"}
    first = last = None
    for index in run.shards():
        ids = sorted(read_columns(run.shard_file(index), ("id",))["id"])
        if wanted & set(ids):
            return next(sample for sample in _made(run, index) if sample.id in wanted)
        if ids:
            first, last = first or ids[0], ids[-1]
    there = f"ids go from {first} to {last}" if first else "no sample is finished yet"
    raise UsageError(f"{name}: {run.name} has no such sample; {there}")


def kept_rows(run: RunDir) -> "pl.DataFrame":
    """`id` and `messages` of the kept samples, in the order of the run."""
    import polars as pl

    files = [run.kept_file(index) for index in run.shards()]
    empty = pl.DataFrame(schema={"id": pl.String, "messages": pl.List(message_type())})
    return pl.concat([empty, *(read_columns(file, ("id", "messages")) for file in files)])


class Split(NamedTuple):
    """Kept rows to train on, and those held out."""

    train: "pl.DataFrame"
    validation: "pl.DataFrame"


def split(kept: "pl.DataFrame", share: float, seed: int) -> Split:
    """Set `share` of the rows aside, at least one of two or more; drawn by `seed`, both parts in their old order."""
    size = max(1, round(len(kept) * share)) if len(kept) > 1 else 0
    aside = set(random.Random(seed).sample(range(len(kept)), size))
    return Split(
        kept[[i for i in range(len(kept)) if i not in aside]],
        kept[[i for i in range(len(kept)) if i in aside]],
    )


def conversations_of(rows: "pl.DataFrame") -> list[list[Message]]:
    return [[message_of(flat) for flat in messages] for messages in rows["messages"].to_list()]
