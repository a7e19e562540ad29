"""The stages curate, assess and package of a run, and its end, as plain functions: what `curate` repeats without a teacher.

Knows no Prefect and no teacher. Each stage reads files of the previous stage and writes its own atomically, so it can run again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.config.recipe import Recipe, list_recipe_plugins
from core.plugins import load_hooks
from core.runs.records import RunManifest, RunState
from core.runs.run_dir import RunDir
from core.sample import RejectionReason, Seed
from flows.clean.run_curation import CurationResult, curate_run, remove_filter_checkpoint
from flows.data.curated_run import DatasetSplit, join_assistant_turns, read_dropped_samples, read_kept_samples
from flows.data.dataset_mixture import MixtureSources, mix_dataset, split_own_rows, write_own_rows
from flows.evaluate.dataset_assessment import (
    assess_answers,
    assess_conversations,
    compare_with_earlier_releases,
    list_conversation_turns,
    measure_conversation_sameness,
    measure_run_spread,
    read_kept_seeds,
)
from flows.release.lineage_view import read_earlier_comparisons
from flows.report.run_report import write_run_report
from flows.rows.row_forms import build_row_document
from flows.run import stages
from flows.run.run_shortfalls import MAKES_MORE, UNEVALUATED_STUDENT
from flows.terminal.console import SESSION
from flows.terminal.run_summary import format_headline

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class StageContext:
    """A locked run with what the stages after production need."""

    run: RunDir
    recipe: Recipe
    folder: Path
    """The folder from which the recipe's relative paths start."""
    manifest: RunManifest
    mixture_sources: MixtureSources


def curate_samples(context: StageContext, seeds: Sequence[Seed], rows: int) -> CurationResult:
    """Filter the run's samples. `rows` is the number of rows that its seeds are made from."""
    with stages.stopwatch(context.manifest, "curate"):
        curated = curate_run(context.run, context.recipe, seeds, context.folder, context.mixture_sources.documents)
    manifest = context.manifest
    manifest.counts, manifest.reasons, manifest.usage = curated.counts, curated.reasons, curated.usage
    manifest.similarities, manifest.agents.difficulty = curated.similarities, curated.difficulty
    for hooks in load_hooks(manifest.plugins, context.run.path, strict=True):
        hooks.finish_curation(context.run, manifest)
    rejected = sum(count for reason, count in curated.reasons.items() if reason.startswith(RejectionReason.difficulty))
    manifest.funnel = [
        ("seeds", rows),
        ("candidates", curated.counts.candidates),
        ("verified", curated.verified + rejected),
        *([("wanted difficulty", curated.verified)] if context.recipe.difficulty else []),
        ("kept", curated.counts.kept),
    ]
    context.run.write_manifest(manifest)  # after the files that it counts
    return curated


def assess_samples(context: StageContext, kept: "pl.DataFrame") -> None:
    config = context.recipe.collapse
    reference, kind = (config.reference, config.kind) if config else (None, None)
    few_structures = config is not None and not config.structures
    conversations, seed = kept["messages"].to_list(), context.recipe.seed
    seeds = read_kept_seeds(context.run, kept["id"].to_list())
    if reference is None:
        parent = context.mixture_sources.parent
        also = f", and comparing them with {parent}" if parent else ""
        SESSION.print_message(
            f"assess: measuring repetition in {len(kept):,} samples{also}; there is no `collapse.reference`"
        )
    else:
        SESSION.print_message(f"assess: comparing {len(kept):,} samples with {reference}")
    with stages.stopwatch(context.manifest, "assess"):
        if reference is None:
            record = assess_conversations(conversations, seed, kind, seeds, few_structures=few_structures)
            if (earlier := context.mixture_sources).parent:
                context.manifest.collapse_parent = compare_with_earlier_releases(
                    record, conversations, earlier.conversations, earlier.parent, seed, context.run.cache, kind
                )
        else:
            answers = [join_assistant_turns(messages) for messages in conversations]
            before = list(read_earlier_comparisons(context.run, context.recipe).values())
            record = assess_answers(
                answers, reference, context.folder, seed, context.run.cache, before,
                kind=kind, turns=list_conversation_turns(conversations),
                documents=[build_row_document({"messages": messages}) for messages in conversations], seeds=seeds,
                few_structures=few_structures,
            )  # fmt: skip
        record.sameness = measure_conversation_sameness(conversations, seed)
        record.spread = measure_run_spread(context.run, context.recipe, kept["id"].to_list())
        for hooks in load_hooks(
            [*list_recipe_plugins(context.recipe), *context.manifest.plugins], context.run.path, strict=True
        ):
            hooks.finish_assessment(context.run, context.manifest)
    context.manifest.collapse = record
    SESSION.print_message(format_headline(record))


def package_samples(context: StageContext, kept: "pl.DataFrame") -> DatasetSplit:
    share = context.recipe.student.held_out if context.recipe.student else 0.1
    own = split_own_rows(kept, context.mixture_sources, share, context.recipe)
    write_own_rows(context.run, own)
    recipe, promoted = context.recipe, context.recipe.generator_teacher.student_of is not None
    parts, mix = mix_dataset(own, context.mixture_sources, recipe.lineage, recipe.seed, promoted=promoted)
    context.manifest.dataset.mix = mix.model_copy(update={"withheld": len(kept) - sum(map(len, own))})
    context.manifest.shortfalls += stages.write_dataset(
        context.run, context.manifest, context.recipe, parts, context.mixture_sources.pairs
    )
    SESSION.print_message(
        f"package: {len(parts.train):,} conversations to train on, {len(parts.validation):,} held out"
    )
    return parts


def finish_run(context: StageContext) -> None:
    """Write the report, then the manifest with the final state. A complete run needs its ledgers of paid replies no more."""
    context.manifest.state = RunState.partial if context.manifest.shortfalls else RunState.done
    unevaluated = any(sentence.startswith(UNEVALUATED_STUDENT) for sentence in context.manifest.shortfalls)
    makes_more = any(sentence.endswith(MAKES_MORE) for sentence in context.manifest.shortfalls)
    makes_more = unevaluated or makes_more or bool(context.manifest.reasons.get(RejectionReason.provider))
    context.manifest.remedy = "resume" if makes_more else None
    if context.manifest.state is RunState.done:
        context.run.remove_ledgers()
    remove_filter_checkpoint(context.run)
    write_run_report(
        context.run, context.manifest, context.recipe, read_kept_samples(context.run), read_dropped_samples(context.run)
    )
    context.manifest.files = context.run.hash_files()
    context.run.write_manifest(context.manifest)
    SESSION.print_message(f"report: {context.run.report_file}")
