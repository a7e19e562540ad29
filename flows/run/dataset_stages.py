"""The stages curate, assess and package of a run, and its end, as plain functions, and `curate`, which repeats them.

Knows no Prefect and no teacher. Each stage reads files of the previous stage and writes its own atomically, so it can run again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.config.recipe import Recipe, list_recipe_plugins
from core.config.teachers import find_student_release
from core.errors import UsageError
from core.plugins import load_hooks
from core.runs.records import RunManifest, RunState
from core.runs.run_dir import RunDir
from core.sample import RejectionReason, Seed
from core.secrets import redact_text
from core.storage.atomic_files import hash_file
from core.tracing import open_trace
from flows.clean.applied_overrides import read_run_overrides
from flows.clean.run_curation import (
    MAKES_MORE,
    THE_STUDENT,
    UNEVALUATED_STUDENT,
    CurationResult,
    curate_run,
    remove_filter_checkpoint,
    update_shortfalls,
)
from flows.data.curated_run import (
    DatasetSplit,
    join_assistant_turns,
    read_dropped_samples,
    read_kept_rows,
    read_kept_samples,
)
from flows.data.dataset_mixture import MixtureSources, mix_dataset, read_mixture_sources, split_own_rows, write_own_rows
from flows.data.run_storage import RunStorage
from flows.data.student_files import load_student_plan
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
from flows.terminal.console import SESSION
from flows.terminal.run_summary import format_headline
from flows.terminal.suggested_commands import format_resume_hint

if TYPE_CHECKING:
    import polars as pl

UNFINISHED_CURATION = "curation has not finished"
"""The beginning of a run's error while it is curated, which another curation removes."""


class RepeatedCuration(NamedTuple):
    manifest: RunManifest
    stale_student: bool
    """Whether the run had a student that was trained on other rows: it is taken from the manifest, so that no release has it."""


class _CurationInputs(NamedTuple):
    recipe: Recipe
    folder: Path
    seeds: Sequence[Seed]


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


def curate_again(run: RunDir, storage: RunStorage) -> RepeatedCuration:
    """Curate, assess and package the samples of a finished run.

    Raises:
        UsageError: if the run is not finished, or a file that its recipe names or its reviews cannot be used.
        RunInUse: if another process works on it.
        StoreError: if a file is damaged or cannot be written; the same command repeats the work.
    """
    attributes = {"gen_ai.workflow.name": run.name, "stillhouse.stage": "curate"}
    with (
        open_trace(f"curate {run.name}", run.name, attributes, SESSION.print_message),
        storage.lock_run(run),
        run.lock(),
    ):
        manifest = run.read_manifest()
        repeated = (manifest.error or "").startswith(UNFINISHED_CURATION)
        if manifest.state not in (RunState.done, RunState.partial) and not repeated:
            raise UsageError(f"{run.name}: is {manifest.state}; {format_resume_hint(run, manifest)}, then curate it")
        inputs = _read_curation_inputs(run, manifest, storage)
        sources = read_mixture_sources(run, inputs.recipe, inputs.folder)
        context = StageContext(run, inputs.recipe, inputs.folder, manifest, sources)
        before = hash_file(run.own_rows_file) if run.own_rows_file.exists() else ""
        read_run_overrides(run)  # a line that cannot be used changes no state
        manifest.state, manifest.error = RunState.running, UNFINISHED_CURATION
        run.write_manifest(manifest)
        try:
            rows = next((left for step, left in manifest.funnel if step == "seeds"), len(inputs.seeds))
            curated = curate_samples(context, inputs.seeds, rows)
            manifest.shortfalls = update_shortfalls(manifest.shortfalls, inputs.recipe, curated)
            kept = read_kept_rows(run)
            assess_samples(context, kept)
            package_samples(context, kept)
            # After an interrupted curation nothing says which rows the student was trained on.
            stale = manifest.student is not None and (repeated or hash_file(run.own_rows_file) != before)
            if stale:
                manifest.student = manifest.evaluation = None
                manifest.shortfalls = [one for one in manifest.shortfalls if not one.startswith(THE_STUDENT)]
            manifest.error = None
            finish_run(context)
        except Exception as error:
            manifest.state = RunState.failed
            manifest.error = redact_text(f"{UNFINISHED_CURATION}: {error or type(error).__name__}")
            run.write_manifest(manifest)
            raise
    return RepeatedCuration(manifest, stale)


def _read_curation_inputs(run: RunDir, manifest: RunManifest, storage: RunStorage) -> _CurationInputs:
    """Seeds are needed only by recipes with a goal for groups, and the plan also by runs of a promoted student."""
    recipe, folder = run.read_recipe(), run.read_recipe_folder()
    if not recipe.goals and not find_student_release(manifest.agents.generator or ""):
        return _CurationInputs(recipe, folder, ())
    from agents.planning.seeds import RunSeeds

    try:
        plan = load_student_plan(run.student, run, storage.runs)
    except UsageError as error:
        raise UsageError(f"{error}; {format_resume_hint(run, manifest)}, which curates it too") from None
    return _CurationInputs(plan.recipe, plan.folder, RunSeeds(plan, manifest.digest))
