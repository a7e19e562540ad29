"""Curation of a run: apply the recipe's filters to its shards, as `stillhouse filter` does to the files of a dataset, and keep
the first samples of each group with a goal. Knows no Prefect and no teacher.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.config.filters import KeepOneFilter
from core.config.recipe import Recipe
from core.runs.records import ComparedSimilarities, DifficultyRecord, SampleCounts
from core.runs.run_dir import RunDir
from core.sample import CHECK_BROKE, RejectionReason, SampleStatus, Seed, TokenUsage, parse_sample_index
from core.storage.atomic_files import count_values, write_json, write_parquet
from core.storage.sample_files import ATTEMPTS_COLUMN, read_sample_columns
from filters.base import Document, DroppedDocument
from filters.chain.filter_chain import RowFilterResult, find_duplicates, join_batches, sketch_released
from filters.rules.contamination import build_all_set_reports
from flows.clean.applied_overrides import AppliedOverrides, read_run_overrides
from flows.clean.filter_checkpoint import BatchSpan, FilterCheckpoint, build_checkpoint_identity
from flows.clean.filter_engine import (
    DROP_COLUMNS,
    THIS_PROCESS,
    DropLookup,
    RowDecisions,
    RowDrop,
    RowNames,
    count_similarities,
    filter_missing_batches,
)
from flows.clean.filter_output import FilterOutputPlan, mask_table
from flows.data.curated_run import build_conversation_document, format_drop_reason
from flows.terminal.text_format import format_count

CHECKPOINT_FOLDER = ".filters"
"""In the run's directory; hidden, so neither hashed nor published."""


class GroupCounts(NamedTuple):
    """Samples of one group of the recipe's goals."""

    verified: int
    """Samples that the agents kept."""
    judged: int
    """Verified samples that were filtered. Those after the sample that reaches the goal are surplus and are not."""
    passed: int
    kept: int
    """The first that passed, in the order of the run, up to the first sample that is missing."""


class CurationResult(NamedTuple):
    counts: SampleCounts
    verified: int
    """Samples that the agents or a person kept, before the filters, and those that a person then dropped."""
    reasons: dict[str, int]
    """Dropped and failed samples by `reason:detail`."""
    usage: TokenUsage
    similarities: dict[str, ComparedSimilarities]
    """Similarities of the pairs that filters compared, by filter."""
    groups: dict[str, GroupCounts]
    difficulty: DifficultyRecord | None
    """The measured pass rates; None if the recipe measures none."""


def curate_run(
    run: RunDir, recipe: Recipe, seeds: Sequence[Seed], folder: Path = Path(), before: Sequence[Document] = ()
) -> CurationResult:
    """Filter the samples that the agents kept, and write the run's kept and dropped samples. Of a group with a goal, keep the
    first samples in the order of the run, as many as the goal. Relative paths of filters start from `folder`. A sample that
    repeats a document released `before` is dropped.

    What people decided in the run's reviews comes first: a sample that they kept stays, whatever agents, filters and goals say,
    one that they dropped goes, and a corrected one has the corrected text.

    Raises:
        UsageError: naming a line of the reviews that cannot be used.
    """
    shards = run.shards()
    files = [run.shard_file(index) for index in shards]
    overrides = read_run_overrides(run)
    checkpoint = _filter_single_samples(run, files, recipe, folder, overrides)
    chosen = _select_samples(files, recipe, seeds, checkpoint, folder, before, overrides)
    plan = _plan_output(files, recipe, checkpoint, folder, before, chosen)
    written = [
        _write_curated_shard(run, index, [span for span in checkpoint.spans if span.file == file], plan, overrides)
        for file, index in enumerate(shards)
    ]
    row_drops = [drop for place in chosen.among if (drop := chosen.decisions.find_row_drop(place))]
    if reports := build_all_set_reports(row_drops, recipe.filters, folder):
        write_json(run.path / "contamination.json", reports)
    per_group = [
        Counter(chosen.groups[place] for place in places)
        for places in (chosen.among, chosen.passed, np.flatnonzero(plan.kept).tolist())
    ]
    return CurationResult(
        counts=_count_samples(written),
        verified=checkpoint.count + sum(shard.dropped_by_people for shard in written),
        reasons=count_values(reason for shard in written for reason in shard.reasons),
        usage=sum((shard.usage for shard in written), TokenUsage()),
        similarities=count_similarities(chosen.decisions.duplicates, recipe.filters),
        groups={
            name: GroupCounts(count, *(counts[name] for counts in per_group))
            for name, count in Counter(chosen.groups).items()
        },
        difficulty=_count_pass_rates(recipe, [measured for shard in written for measured in shard.attempts]),
    )


def _filter_single_samples(
    run: RunDir, files: Sequence[Path], recipe: Recipe, folder: Path, overrides: AppliedOverrides
) -> FilterCheckpoint:
    """Apply the filters of single samples to those that the agents or a person kept, unless they have seen them."""
    identity = build_checkpoint_identity(files, recipe.filters, folder)
    identity |= {"overrides": overrides.digest} if overrides.decisions else {}
    checkpoint = FilterCheckpoint(run.path / CHECKPOINT_FOLDER, identity, recipe.filters)
    scored = any(isinstance(config, KeepOneFilter) and config.keep == "best" for config in recipe.filters)
    meters = [measure for config in recipe.filters if (measure := config.open_meter(folder))]
    columns = ("id", "state", "messages", "fields", *(("history",) if scored else ()), *(("seed",) if meters else ()))

    def read(row: Mapping[str, Any], name: str) -> Document | None:
        document = _build_sample_document(overrides, run.path, row, name)
        return reduce(lambda measured, measure: measure(row, measured), meters, document) if document else None

    for batch, result in filter_missing_batches(
        files, checkpoint, recipe.filters, folder, THIS_PROCESS, read, columns, checked=columns
    ):
        checkpoint.add(batch.file, result)
    return checkpoint


def _plan_output(
    files: Sequence[Path],
    recipe: Recipe,
    checkpoint: FilterCheckpoint,
    folder: Path,
    before: Sequence[Document],
    chosen: "_SampleSelection",
) -> FilterOutputPlan:
    """Which samples are kept, and why each other one is dropped."""
    kept = np.zeros(checkpoint.count, dtype=np.bool_)
    kept[sorted((set(chosen.passed) - chosen.surplus) | chosen.certain)] = True
    names = RowNames(files, checkpoint, range(checkpoint.count), before)
    lookup = DropLookup(chosen.decisions, recipe.filters, folder, names)

    def find_drop(place: int) -> RowDrop:
        if place not in chosen.surplus:
            return lookup.find_drop(place)
        name, detail = names.name_document(place), f"{recipe.goals.get(chosen.groups[place], 0)} before it are kept"
        drop = DroppedDocument(id=name, filter="keep", reason=RejectionReason.surplus, detail=detail)
        return RowDrop(names.name_row(place), drop)

    return FilterOutputPlan(kept, find_drop, chosen.decisions.judged.masks, frozenset())


def remove_filter_checkpoint(run: RunDir) -> None:
    """Remove the results of filters on single samples, which only an unfinished run needs."""
    shutil.rmtree(run.path / CHECKPOINT_FOLDER, ignore_errors=True)


def _build_sample_document(
    overrides: AppliedOverrides, run: Path, row: Mapping[str, Any], name: str
) -> Document | None:
    """The document of a sample that the agents or a person kept."""
    if overrides.decide_state(row["id"], row["state"]) is not SampleStatus.kept:
        return None
    row = overrides.apply_to_row(row)
    critiques = json.loads(row["history"])["critiques"] if "history" in row else []
    scores = list(critiques[-1]["scores"].values()) if critiques else []
    score = sum(scores) / len(scores) if scores else None
    question = json.loads(row["fields"]).get("question", "")
    return build_conversation_document(name, row["messages"], question, score, image_folder=run)


class _SampleSelection(NamedTuple):
    """Which samples a run keeps, by place among those that the agents or a person kept."""

    groups: list[str]
    """The group of each sample."""
    among: list[int]
    """Samples up to each group's goal."""
    decisions: RowDecisions
    passed: list[int]
    """Samples of `among` that no filter drops."""
    surplus: set[int]
    """Samples after a group's goal, and those that may not be the first of their group."""
    certain: set[int]
    """Samples that a person kept."""


def _select_samples(
    files: Sequence[Path],
    recipe: Recipe,
    seeds: Sequence[Seed],
    checkpoint: FilterCheckpoint,
    folder: Path,
    before: Sequence[Document],
    overrides: AppliedOverrides,
) -> _SampleSelection:
    """What the filters that compare samples, the goals and people decide together."""
    decided = checkpoint.read_ids(range(checkpoint.count)) if overrides.decisions else {}
    certain = {place for place, name in decided.items() if overrides.keeps(name)}
    judged = checkpoint.load_results()
    if before:  # last in the list, yet kept before any sample like them
        judged = join_batches([judged, sketch_released(before, recipe.filters)])
    groups = [""] * checkpoint.count
    if recipe.quotas:
        groups = [
            recipe.find_sample_group(json.loads(row["seed"])["data"], row[ATTEMPTS_COLUMN])
            for file in files
            for row in read_sample_columns(file, ("id", "state", "seed", ATTEMPTS_COLUMN)).iter_rows(named=True)
            if overrides.decide_state(row["id"], row["state"]) is SampleStatus.kept
        ]
    among, decisions = _select_first_of_groups(judged, groups, recipe, folder, certain)
    passed = [place for place in among if decisions.step[place] < 0]
    surplus = set(range(checkpoint.count)) - set(among)
    if recipe.goals:
        # The lowest index of each group without a sample. Only samples before it are sure to be the group's first, however many
        # were made at once.
        gaps: dict[str, int] = {}
        finished = {parse_sample_index(name) for file in files for name in read_sample_columns(file, ("id",))["id"]}
        for index in range(recipe.samples):
            if index in finished:
                continue
            if recipe.groups_by_pass_rate:  # a missing sample could be of any group
                gaps = dict.fromkeys(recipe.goals, index)
                break
            if (group := recipe.find_group(seeds[index].data)) in recipe.goals:
                gaps.setdefault(group, index)
                if len(gaps) == len(recipe.goals):
                    break
        ids = checkpoint.read_ids(passed)
        surplus |= {p for p in passed if parse_sample_index(ids[p]) >= gaps.get(groups[p], recipe.samples)}
    return _SampleSelection(groups, among, decisions, passed, surplus, certain)


def _select_first_of_groups(
    judged: RowFilterResult, groups: Sequence[str], recipe: Recipe, folder: Path, certain: AbstractSet[int]
) -> tuple[list[int], RowDecisions]:
    """The places up to each group's goal, and the filters' decisions about them.

    A sample after its group's goal is left out, so that no other group's sample is a repeat of it: whether it was made depends
    on the number of samples made at once. The goal reached first is taken first, since all samples before it stay.
    """
    released = range(len(groups), judged.documents)

    def decide() -> RowDecisions:
        places = np.array([*among, *released], dtype=np.int64)
        combined = RowDecisions.combine(judged, find_duplicates(judged, recipe.filters, folder, places))
        combined.step[sorted(certain)] = -1
        return combined

    among, open_groups = list(range(len(groups))), dict(recipe.goals)
    decisions = decide()
    while ends := [
        (kept[goal - 1], group)
        for group, goal in open_groups.items()
        if len(kept := [place for place in among if groups[place] == group and decisions.step[place] < 0]) >= goal
    ]:
        last, group = min(ends)
        del open_groups[group]
        after = {place for place in among if groups[place] == group and place > last}
        repeats_after = any(decisions.find_original(place) in after for place in among)
        among = [place for place in among if place not in after]
        if open_groups and repeats_after:
            decisions = decide()
    return among, decisions


class _ShardCounts(NamedTuple):
    states: dict[str, int]
    reasons: list[str]
    usage: TokenUsage
    attempts: list[tuple[list[bool], bool]]
    """Of each sample with a measured difficulty: whether each attempt passed, and whether the sample is kept."""
    dropped_by_people: int
    """Samples that the agents kept and a person dropped."""


def _count_pass_rates(recipe: Recipe, measured: Sequence[tuple[list[bool], bool]]) -> DifficultyRecord | None:
    difficulty = recipe.difficulty
    if difficulty is None:
        return None
    samples, kept = [0] * (difficulty.attempts + 1), [0] * (difficulty.attempts + 1)
    for attempts, is_kept in measured:
        # Attempts that ended early count as the nearest of the possible rates: it is on the same side of the wanted ones.
        place = round(sum(attempts) * difficulty.attempts / len(attempts))
        samples[place] += 1
        kept[place] += is_kept
    return DifficultyRecord(
        teacher=recipe.teachers[difficulty.teacher].model, attempts=difficulty.attempts, wanted=difficulty.wanted,
        samples=samples, kept=kept,
    )  # fmt: skip


def _count_samples(shards: Sequence[_ShardCounts]) -> SampleCounts:
    states: Counter[str] = sum((Counter(shard.states) for shard in shards), Counter())
    return SampleCounts(
        candidates=states.total(),
        kept=states[SampleStatus.kept],
        dropped=states[SampleStatus.dropped],
        failed=states[SampleStatus.failed],
    )


def _write_curated_shard(
    run: RunDir, index: int, spans: Sequence[BatchSpan], plan: FilterOutputPlan, overrides: AppliedOverrides
) -> _ShardCounts:
    """Write the kept samples of a shard, and the rest with `DROP_COLUMNS`, which are null where no filter dropped a sample."""
    import polars as pl

    produced = read_sample_columns(run.shard_file(index))
    shard = overrides.apply_to_shard(produced)
    by_people = int(((shard["reason"] == RejectionReason.review) & (produced["state"] == SampleStatus.kept)).sum())
    places = {number - 1: place for span in spans for place, number in enumerate(span.numbers, span.first_place)}
    if masks := {row: plan.masks[place] for row, place in places.items() if place in plan.masks}:
        shard = pl.DataFrame(mask_table(shard.to_arrow(), masks))
    drops = {row: plan.find_drop(place).build_columns() for row, place in places.items() if not plan.kept[place]}
    filtered = pl.DataFrame(
        {name: [drops[row][name] if row in drops else None for row in range(len(shard))] for name in DROP_COLUMNS},
        schema={name: pl.Float64 if name == "score" else pl.String for name in DROP_COLUMNS},
    )
    judged = shard.with_columns(
        *(filtered[name] for name in DROP_COLUMNS if name not in shard.columns),
        state=shard["state"].set(filtered["filter"].is_not_null(), SampleStatus.dropped.value),
        reason=filtered["reason"].fill_null(shard["reason"]),
        detail=filtered["detail"].fill_null(shard["detail"]),
    )
    kept = judged["state"] == SampleStatus.kept
    write_parquet(run.kept_file(index), judged.filter(kept).select(shard.columns))
    dropped = judged.filter(~kept)
    write_parquet(run.dropped_file(index), dropped)
    usage = judged["usage"].struct.unnest().sum().row(0, named=True)
    reasons = [format_drop_reason(reason, detail) for reason, detail in dropped.select("reason", "detail").iter_rows()]
    attempts = (
        [(row, state == SampleStatus.kept) for row, state in judged.select(ATTEMPTS_COLUMN, "state").iter_rows() if row]
        if ATTEMPTS_COLUMN in judged.columns
        else []
    )
    return _ShardCounts(count_values(judged["state"]), reasons, TokenUsage(**usage), attempts, by_people)


# What a run lacks at the end, a sentence for each cause

THE_STUDENT = "the student "
"""The beginning of every shortfall of the student."""
UNEVALUATED_STUDENT = f"{THE_STUDENT}is not evaluated"
"""The beginning of a shortfall that a resumed run can make up for."""
UNANSWERED, UNMET_GOAL = "got no answer from a teacher", "are kept of"
EMPTY_FORM, NO_THINKING = "can hold none of the kept samples", "and no reply had thinking"
UNJUDGED, NONE_KEPT = "could not be judged", "is kept; `stillhouse show` prints the reasons"
MAKES_MORE = "`run --resume` makes more"
"""In a shortfall that a person's decisions made, while the recipe allows more candidates."""


class RunShortfalls(NamedTuple):
    """The missing samples at the end of production, a sentence for each cause."""

    resumable: list[str]
    """Causes that a resumed run can remove."""
    lost: list[str]

    @property
    def sentences(self) -> list[str]:
        return [*self.resumable, *self.lost]


def count_unmet_goals(recipe: Recipe, curated: CurationResult) -> dict[str, int]:
    """The number of kept samples of each group below its goal."""
    kept = {name: curated.groups[name].kept if name in curated.groups else 0 for name in recipe.goals}
    return {name: count for name, count in kept.items() if count < recipe.goals[name]}


def describe_shortfalls(recipe: Recipe, curated: CurationResult, *, complete: bool) -> list[str]:
    """The shortfalls after filtering, a sentence each."""
    if recipe.goals and not count_unmet_goals(recipe, curated):
        return []
    lost = curated.reasons.get(RejectionReason.provider, 0)
    return [
        *([f"{format_count(lost, 'sample')} {UNANSWERED}; --resume asks again"] if lost else []),
        *(_describe_unmet_goals(recipe, curated, f", and samples = {recipe.samples} is the most") if complete else []),
    ]


def _describe_unmet_goals(recipe: Recipe, curated: CurationResult, why: str) -> list[str]:
    return [
        f"{kept} of {recipe.goals[name]} samples{f' of {name!r}' if name else ''} {UNMET_GOAL} "
        f"{curated.counts.candidates} candidates{why}"
        for name, kept in count_unmet_goals(recipe, curated).items()
    ]


def update_shortfalls(before: Sequence[str], recipe: Recipe, curated: CurationResult) -> list[str]:
    """The shortfalls of a finished run that is curated again: `before`, with the sentences about filtering as they are now, and
    without those about the forms of its dataset, which is written again.
    """
    known = (UNANSWERED, UNMET_GOAL, UNJUDGED, NONE_KEPT, EMPTY_FORM, NO_THINKING)
    stays = [sentence for sentence in before if not any(part in sentence for part in known)]
    if curated.counts.candidates < recipe.samples:
        goals = _describe_unmet_goals(recipe, curated, f"; {MAKES_MORE}")
        shortfalls = [*describe_shortfalls(recipe, curated, complete=False), *goals]
    else:
        shortfalls = describe_shortfalls(recipe, curated, complete=True)
    return [*stays, *shortfalls, *describe_lost_samples(recipe, curated)]


def describe_lost_samples(recipe: Recipe, curated: CurationResult) -> list[str]:
    """Samples that can never be made, a sentence each. With `keep` or quotas, other samples replace them."""
    faults = Counter(
        "a check broke"
        if reason.startswith(f"{RejectionReason.contract}:{CHECK_BROKE}")
        else "a reply did not match its schema, even after repairs"
        for reason, count in curated.reasons.items()
        if reason.startswith(RejectionReason.contract)
        for _ in range(count)
    )
    lost = [f"{format_count(count, 'sample')} {UNJUDGED}: {fault}" for fault, count in faults.items()]
    lost = [] if recipe.goals else lost
    if curated.counts.candidates and not curated.counts.kept and not recipe.goals:
        lost.append(f"none of {format_count(curated.counts.candidates, 'candidate')} {NONE_KEPT}")
    return lost
