"""What the filters made of a run's samples: read and written shard by shard, so that a large run needs no more memory than what
filters keep of each to compare them. Knows files and filters; knows no Prefect and no teacher.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.errors import UsageError
from core.filter_config import KeepOneFilter
from core.recipe import Recipe
from core.run import Counts, RunDir, Similarities
from core.sample import Message, Reason, Sample, Seed, State, Usage, index_of
from core.store import (
    DROP_COLUMNS,
    counted,
    message_of,
    message_type,
    read_columns,
    read_samples,
    write_json,
    write_parquet,
)
from filters.base import Document, Drop, Mask
from filters.chain import Judged, decide, drops_of, joined, judge, released
from filters.contamination import all_reports
from flows.formats import asked
from flows.masking import masked_table
from flows.similarity import similarities

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
    similarities: dict[str, Similarities]
    """Of the pairs that filters compared, by filter."""
    groups: dict[str, "Group"]
    """Of the samples that the agents had kept, by the groups of the recipe's goals."""


class Group(NamedTuple):
    verified: int
    """How many the agents had kept."""
    judged: int
    """How many of them the filters judged: those after the goal was reached are surplus, and are not."""
    passed: int
    kept: int
    """Of those that passed, the first in the order of the run, up to the first sample that is missing."""


def curate(
    run: RunDir, recipe: Recipe, seeds: Sequence[Seed], folder: Path = Path(), before: Sequence[Document] = ()
) -> Curated:
    """Filter what the agents kept over the whole run, and write kept and dropped samples. Of a group with a goal, so many
    are kept as it says, the first in the order of the run. Relative paths of filters start from `folder`. What was released
    `before` is not repeated.
    """
    verified = _Verified.of(run, recipe, folder, before)
    among, found = _first_of_each_group(verified, recipe, folder)
    drops = {drop.id: drop for drop in found.drops.values()}
    group_of = {verified.names[place]: verified.groups[place] for place in verified.own}
    good = [verified.names[place] for place in among if place not in found.drops]
    if recipe.goals:
        gaps = _gaps(run, recipe, seeds)
        late = {name for name in good if index_of(name) >= gaps.get(group_of[name], recipe.samples)}
        extra = late | (group_of.keys() - {verified.names[place] for place in among})
        drops |= {name: _surplus(name, recipe.goals.get(group_of[name], 0)) for name in extra}
    masks = {verified.names[place]: masks for place, masks in verified.judged.masks.items()}
    tallies = [_write(run, index, drops, masks) for index in run.shards()]
    if reports := all_reports(list(found.drops.values()), recipe.filters, folder):
        write_json(run.path / "contamination.json", reports)
    kept = Counter(group for name, group in group_of.items() if name not in drops)
    seen = Counter(verified.groups[place] for place in among)
    passed = Counter(group_of[name] for name in good)
    groups = {
        name: Group(count, seen[name], passed[name], kept[name]) for name, count in Counter(group_of.values()).items()
    }
    return _summed(tallies, len(group_of), found.similarities, groups)


class _Filtered(NamedTuple):
    drops: dict[int, Drop]
    """By place."""
    similarities: dict[str, Similarities]


class _Verified(NamedTuple):
    """What was released before, and what the agents kept, by place, without its text."""

    names: list[str]
    groups: list[str]
    judged: Judged
    before: int
    """How many were released before; they come first, and belong to no group."""

    @property
    def own(self) -> range:
        """The places of what the agents kept."""
        return range(self.before, len(self.names))

    @classmethod
    def of(cls, run: RunDir, recipe: Recipe, folder: Path, before: Sequence[Document]) -> "_Verified":
        names = [document.id for document in before]
        groups = [""] * len(before)
        parts = [released(before, recipe.filters)] if before else []
        for index in run.shards():
            documents = []
            for group, document in _documents(run, index, recipe):
                documents.append(document)
                groups.append(group)
            names += [document.id for document in documents]
            parts.append(judge(documents, recipe.filters, folder))
        return cls(names, groups, joined(parts), len(before))

    def filtered(self, recipe: Recipe, folder: Path, among: Sequence[int]) -> _Filtered:
        """If only those `among` were there."""
        there = np.array([*range(self.before), *among], dtype=np.int64)
        decisions = decide(self.judged, recipe.filters, folder, there)
        drops = drops_of(self.judged, decisions, recipe.filters, folder, self.names)
        return _Filtered(
            {place: drops[place] for place in among if place in drops}, similarities(decisions, recipe.filters)
        )


def _first_of_each_group(verified: _Verified, recipe: Recipe, folder: Path) -> tuple[list[int], _Filtered]:
    """The places up to each group's goal, and what the filters make of them.

    What comes after a goal is left out, so that it cannot be what another group's document repeats: whether it was made
    depends on how many samples were made at once. The goal that is reached first is taken first, since all before it stands.
    """
    among, open_groups = list(verified.own), dict(recipe.goals)
    found = verified.filtered(recipe, folder, among)
    while ends := [
        end for group, goal in open_groups.items() if (end := _end(verified, among, found.drops, group, goal))
    ]:
        last, group = min(ends)
        del open_groups[group]
        after = {verified.names[place] for place in among if verified.groups[place] == group and place > last}
        among = [place for place in among if verified.names[place] not in after]
        if open_groups and any(drop.duplicate_of in after for drop in found.drops.values()):
            found = verified.filtered(recipe, folder, among)
        else:
            left = {place: found.drops[place] for place in among if place in found.drops}
            found = found._replace(drops=left)
    return among, found


def _end(
    verified: _Verified, among: Sequence[int], drops: Mapping[int, Drop], group: str, goal: int
) -> tuple[int, str] | None:
    """The place of the kept document with which `group` reaches its goal."""
    kept = [place for place in among if place not in drops and verified.groups[place] == group]
    return (kept[goal - 1], group) if len(kept) >= goal else None


def _gaps(run: RunDir, recipe: Recipe, seeds: Sequence[Seed]) -> dict[str, int]:
    """The lowest index of each group without a sample: only those before it are sure to be the first, however many were
    made at once.
    """
    there = {index_of(name) for index in run.shards() for name in read_columns(run.shard_file(index), ("id",))["id"]}
    gaps: dict[str, int] = {}
    for index in range(recipe.samples):
        if index not in there and (group := recipe.group_of(seeds[index].data)) in recipe.goals:
            gaps.setdefault(group, index)
            if len(gaps) == len(recipe.goals):
                break
    return gaps


def _surplus(sample: str, keep: int) -> Drop:
    return Drop(id=sample, filter="keep", reason=Reason.surplus, detail=f"{keep} before it are kept")


def _documents(run: RunDir, index: int, recipe: Recipe) -> Iterator[tuple[str, Document]]:
    """What the agents kept of a shard, with the group that each belongs to."""
    scored = any(isinstance(config, KeepOneFilter) and config.keep == "best" for config in recipe.filters)
    columns = (
        "id",
        "state",
        "messages",
        "fields",
        *(("seed",) if recipe.quotas else ()),
        *(("history",) if scored else ()),
    )
    for row in read_columns(run.shard_file(index), columns).iter_rows(named=True):
        if row["state"] == State.kept:
            group = recipe.group_of(json.loads(row["seed"])["data"]) if recipe.quotas else ""
            question = json.loads(row["fields"]).get("question", "")
            score = _score_in(json.loads(row["history"])) if scored else None
            yield group, document_in(row["id"], row["messages"], question, score)


def document_in(name: str, messages: Sequence[dict[str, Any]], question: str, score: float | None = None) -> Document:
    """What filters read of a conversation as a samples file has it."""
    around = "\n".join(flat["content"] for flat in messages if flat["role"] in ("system", "tool"))
    return Document(name, said_in(messages), asked_in(messages), question, around, score=score)


def _score_in(history: Mapping[str, Any]) -> float | None:
    """The mean of the critic's last scores."""
    scores = list(history["critiques"][-1]["scores"].values()) if history["critiques"] else []
    return sum(scores) / len(scores) if scores else None


def asked_in(messages: Sequence[dict[str, Any]]) -> str:
    """What the user asks, all turns joined by a newline."""
    return "\n".join(flat["content"] for flat in messages if flat["role"] == "user")


def said_in(messages: Sequence[dict[str, Any]]) -> str:
    """What the assistant says, all turns joined by a newline, as `Candidate.answer`."""
    return "\n".join(message_of(flat).text for flat in messages if flat["role"] == "assistant")


class _Tally(NamedTuple):
    """Of one shard."""

    states: dict[str, int]
    reasons: list[str]
    usage: Usage


def _write(run: RunDir, index: int, drops: dict[str, Drop], masks: Mapping[str, Sequence[Mask]]) -> _Tally:
    import polars as pl

    shard = read_columns(run.shard_file(index))
    if here := {i: masks[name] for i, name in enumerate(shard["id"]) if name in masks}:
        shard = pl.DataFrame(masked_table(shard.to_arrow(), here))
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


def _summed(
    tallies: Sequence[_Tally], verified: int, alike: dict[str, Similarities], groups: dict[str, Group]
) -> Curated:
    states = {state: sum(tally.states.get(state, 0) for tally in tallies) for state in State}
    counts = Counts(
        candidates=sum(states.values()),
        kept=states[State.kept],
        dropped=states[State.dropped],
        failed=states[State.failed],
    )
    reasons = counted(reason for tally in tallies for reason in tally.reasons)
    usage = sum((tally.usage for tally in tallies), Usage())
    return Curated(counts, verified, reasons, usage, alike, groups)


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
    """The kept samples in the order of the run: `id`, `messages`, how many of these are the prompt (`asked`), and what the
    candidates' fields say of `reasoning`, `tools` and `question`, the seed in their place for tools, as JSON text.
    """
    import polars as pl

    return pl.concat([no_rows(), *(_kept(run.kept_file(index)) for index in run.shards())])


def no_rows() -> "pl.DataFrame":
    """As `kept_rows`, without a row."""
    import polars as pl

    texts = dict.fromkeys(("reasoning", "tools", "question"), pl.String)
    return pl.DataFrame(schema={"id": pl.String, "messages": pl.List(message_type()), "asked": pl.Int64, **texts})


def _kept(file: Path) -> "pl.DataFrame":
    import polars as pl

    rows = read_columns(file, ("id", "messages", "fields", "seed"))
    fields, roles = pl.col("fields").str, pl.element().struct.field("role")
    told = rows.select(pl.col("messages").list.eval(roles)).to_series().to_list()
    return rows.select(
        "id",
        "messages",
        pl.Series("asked", [asked(one) for one in told], dtype=pl.Int64),
        reasoning=fields.json_path_match("$.reasoning"),
        tools=pl.coalesce(fields.json_path_match("$.tools"), pl.col("seed").str.json_path_match("$.data.tools")),
        question=fields.json_path_match("$.question"),
    )


class Split(NamedTuple):
    """Kept rows to train on, and those held out."""

    train: "pl.DataFrame"
    validation: "pl.DataFrame"


def split(kept: "pl.DataFrame", share: float, seed: int, answers_per_seed: int = 1) -> Split:
    """Set about `share` of the rows aside, drawn by `seed`, both parts in their old order.

    Samples of one seed stay together, and so do those with one prompt, so that nothing held out is asked in training. Of
    two such groups or more, one at least is aside and one is not.
    """
    groups = _groups(kept, answers_per_seed)
    random.Random(seed).shuffle(groups)
    size = max(1, min(round(len(kept) * share), len(kept) - 1)) if len(groups) > 1 else 0
    aside: set[int] = set()
    for group in groups:
        if len(aside) + len(group) <= size:
            aside.update(group)
    if size and not aside:
        smallest: list[int] = min(groups, key=len)
        aside.update(smallest)
    return Split(
        kept[[i for i in range(len(kept)) if i not in aside]],
        kept[[i for i in range(len(kept)) if i in aside]],
    )


def _groups(kept: "pl.DataFrame", answers_per_seed: int) -> list[list[int]]:
    """Places of rows that share a seed or a prompt, directly or through others (union-find), in their order."""
    import polars as pl

    prompts = kept.select(pl.col("messages").list.head("asked").hash()).to_series()
    head: dict[Any, Any] = {}

    def root(key: Any) -> Any:
        while head.setdefault(key, key) != key:
            head[key] = key = head[head[key]]
        return key

    keys = [("seed", index_of(name) // answers_per_seed) for name in kept["id"]]
    for key, prompt in zip(keys, prompts, strict=True):
        head[root(("prompt", prompt))] = root(key)
    groups: dict[Any, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(root(key), []).append(place)
    return list(groups.values())


def conversations_of(rows: "pl.DataFrame") -> list[list[Message]]:
    return [[message_of(flat) for flat in messages] for messages in rows["messages"].to_list()]
