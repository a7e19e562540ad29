"""The stages package, distill and evaluate of a run, as plain functions on its directory. Knows no Prefect.

Each stage reads files of the previous stage and writes its own atomically, so it can run again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from core.config.recipe import Recipe, list_recipe_plugins
from core.plugins import load_hooks
from core.runs.lineage import Lineage
from core.runs.records import CriticRecord, FormatRecord, RunManifest
from core.runs.releases import locate_releases
from core.runs.run_dir import RunDir
from core.runs.student_records import EvaluationRecord, ModelPassRecord
from core.shared_options import DEFAULT_GGUF_TYPE, name_student_file
from core.storage.atomic_files import hash_file, read_json, write_atomically, write_bytes, write_parquet, write_text
from core.storage.image_files import IMAGES_COLUMN, format_image_url, read_image
from core.storage.sample_files import drop_empty_turn_fields
from core.tracing import find_trace
from flows.clean.run_curation import EMPTY_FORM, NO_THINKING
from flows.data.curated_run import DatasetSplit, read_finished_samples
from flows.data.dataset_card import build_dataset_card
from flows.data.dataset_formats import (
    IMAGE_FILE_FORMS,
    build_hub_features,
    count_images,
    format_dataset,
    format_json_lines,
    measure_thinking,
)
from flows.rows.row_images import write_parquet_with_images
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_duration

if TYPE_CHECKING:
    import polars as pl

    from agents.planning.run_plan import RunPlan
    from flows.evaluate.student_results import StudentEvaluation

THINKING_SAMPLES = 1000
"""Samples searched for thinking that an agent was asked for: the whole history of each is read."""
REVIEWED_SAMPLES = 1000
"""Samples whose reviews are counted."""


def _describe_missing_thinking(run: RunDir, recipe: Recipe) -> list[str]:
    """A sentence for each agent that was asked to think and got neither thinking nor a count of it, in the first samples."""
    agents = {"generator": recipe.agents.generator, "critic": recipe.agents.critic, "verifier": recipe.agents.verifier}
    if recipe.difficulty:
        agents["solver"] = recipe.difficulty.build_agent(recipe.agents.generator)
    replies = {name: 0 for name, agent in agents.items() if agent and agent.reasoning not in (None, "off")}
    samples = islice(read_finished_samples(run), THINKING_SAMPLES) if replies else ()
    for turn in (turn for sample in samples for turn in sample.turns):
        name = "generator" if turn.agent.startswith("debater") else turn.agent
        if turn.reasoning or turn.usage.reasoning_tokens:
            replies.pop(name, None)
        elif name in replies:
            replies[name] += 1
        if not replies:
            break
    return [
        f"{name}: no thinking returned in {count:,} {'reply' if count == 1 else 'replies'}; see docs/thinking.md"
        for name, count in replies.items()
        if count
    ]


def _count_reviews(run: RunDir, recipe: Recipe) -> CriticRecord | None:
    """The reviews of a critic that is a teacher, or the confidence of a promoted student in its drafts, in the first samples."""
    promoted = recipe.generator_teacher.student_of is not None
    if recipe.agents.critic is None or (recipe.agents.critic.type != "teacher" and not promoted):
        return None
    by_confidence = recipe.agents.critic.type == "confidence"
    samples = islice(read_finished_samples(run), REVIEWED_SAMPLES)
    faulted = [bool(critique.faults) for sample in samples for critique in sample.critiques]
    if not faulted:
        return None
    return CriticRecord(reviews=len(faulted), faulted=sum(faulted), by_confidence=by_confidence)


def write_dataset(
    run: RunDir, manifest: RunManifest, recipe: Recipe, parts: DatasetSplit, released: "Sequence[pl.DataFrame]" = ()
) -> list[str]:
    """Write `dataset/`: each form of the recipe as Parquet, and as JSONL if the recipe asks for it, with the dataset card.
    `released` are the preference pairs of earlier releases; pairs whose chosen sample is in `parts` are included.

    Returns a sentence for each form without rows.
    """
    manifest.dataset.formats, manifest.dataset.pairs, missing = [], None, []
    manifest.dataset.thinking = measure_thinking(parts, recipe.dataset.thinking)
    manifest.agents.missing_thinking = _describe_missing_thinking(run, recipe)
    manifest.agents.critic = _count_reviews(run, recipe)
    for hooks in load_hooks([*list_recipe_plugins(recipe), *manifest.plugins], run.path):
        hooks.finish_package(run, manifest)
    read = find_dataset_images(run, recipe)
    with write_atomically(run.dataset) as folder:
        folder.mkdir()
        for name in recipe.dataset.formats:
            form = format_dataset(
                name,
                _split_run_pairs(run, manifest, recipe, parts, released) if name == "preference" else parts,
                recipe.dataset.thinking,
            )
            train, validation = form.parts
            manifest.dataset.formats.append(FormatRecord(
                name=name, columns=train.columns, train=len(train), validation=len(validation), left_out=form.left_out,
                features=build_hub_features(form), images=count_images(form),
            ))  # fmt: skip
            # Parquet is at the top for the first form, in a folder of its own for others. JSONL is always in that folder, since
            # a reader of the top as a dataset would otherwise find every row twice.
            own = folder / name
            for side, rows in zip(("train", "validation"), form.parts, strict=True):
                parquet = (folder if len(manifest.dataset.formats) == 1 else own) / f"{side}.parquet"
                if IMAGES_COLUMN in rows.columns:
                    write_parquet_with_images(parquet, rows, read)
                else:
                    write_parquet(parquet, rows)
                with (
                    write_atomically(own / f"{side}.jsonl") as unfinished,
                    unfinished.open("w", encoding="utf-8") as file,
                ):
                    place = partial(_place_image, own if name in IMAGE_FILE_FORMS else None, read)
                    file.writelines(format_json_lines(rows, form.texts, place))
            if form.left_out and not any(map(len, form.parts)):
                missing.append(f"{name} {EMPTY_FORM}: they call tools or have images, or their turns do not alternate")
        write_text(folder / "README.md", build_dataset_card(manifest, recipe, len(parts.train), len(parts.validation)))
    if recipe.dataset.thinking and not manifest.dataset.thinking and any(map(len, parts)):
        missing.append(
            f'dataset.thinking = "{recipe.dataset.thinking}", {NO_THINKING}: set agents.generator.reasoning, and '
            "try the teacher with `stillhouse validate RECIPE --live`"
        )
    if manifest.dataset.pairs and not manifest.dataset.pairs.total:
        from flows.data.preference_pairs import explain_missing_pairs

        missing.append(explain_missing_pairs(manifest.dataset.pairs, recipe.preference))
    return missing


def _place_image(folder: Path | None, read: Callable[[str], bytes], name: str) -> str:
    """An image of JSON lines: the path of its file in `folder`, or without one its `data:` URL."""
    if folder is None:
        return format_image_url(read(name))
    write_bytes(folder / name, read(name))
    return name


def find_dataset_images(run: RunDir, recipe: Recipe) -> Callable[[str], bytes]:
    """A function that reads an image of the run's dataset, which may be one of an earlier release. It raises StoreError."""
    lineage = Lineage(locate_releases(run.path.parent) / recipe.name)
    folders = [run.path, *(lineage.path / str(number) for number in lineage.list_generations())]
    return partial(read_image, folders=folders)


def _split_run_pairs(
    run: RunDir, manifest: RunManifest, recipe: Recipe, parts: DatasetSplit, released: "Sequence[pl.DataFrame]"
) -> "list[pl.DataFrame]":
    """Preference pairs, each in the split of its prompt. Records the counts of the run's own pairs in the manifest."""
    import polars as pl

    from agents.families import find_recipe_family
    from flows.data.preference_pairs import find_preference_pairs, split_preference_pairs

    pairs = find_preference_pairs(read_finished_samples(run), find_recipe_family(recipe), recipe)
    own, manifest.dataset.pairs = split_preference_pairs(pairs, set(parts.validation["id"]))
    write_parquet(run.pairs_file, drop_empty_turn_fields(pl.concat(own)))
    all_pairs = pl.concat([*released, *own])
    return [all_pairs.filter(pl.col("chosen_id").is_in(rows["id"].to_list())) for rows in parts]


async def evaluate_run_student(run: RunDir, plan: "RunPlan", manifest: RunManifest) -> EvaluationRecord:
    """Ask teacher, start and student the recipe's number of held-out requests, and the general panel. An evaluation of this
    student is not repeated.

    Replies of an interrupted evaluation come from the reply cache. The teacher's replies are charged to the rest of the budget.

    Raises:
        BudgetExhausted, RunStopped, StillhouseError: as `evaluate_student`.
    """
    from flows.evaluate.student_evaluation import StudentEvaluationTask, evaluate_student
    from students.student_folder import write_card_evaluation

    assert plan.recipe.student
    config = plan.recipe.student.evaluation
    assert config
    digest = read_json(run.student / "student.json")["digest"]
    before = manifest.evaluation
    if before and (before.student_digest, before.requests, before.panel_tasks) == (
        digest,
        config.requests,
        config.panel,
    ):
        return before
    limits = plan.recipe.budget.model_copy(update={"minutes": None})  # these are of production
    task = StudentEvaluationTask(
        run.student, plan, run, config.requests, DEFAULT_GGUF_TYPE, panel=config.panel, pass_rates_only=True, cache=run.cache,
        budget=limits, journal=run.evaluation_spend_file, elsewhere=manifest.costs.spent, start_folder=run.path / "wip" / "start",
    )  # fmt: skip
    evaluation = await evaluate_student(task, SESSION)
    record = _build_evaluation_record(evaluation, digest, hash_file(run.student / name_student_file()))
    write_card_evaluation(run.student, record)
    return record


def forget_stale_evaluation(run: RunDir, manifest: RunManifest) -> None:
    """Remove the evaluation of another student than the run's current one from the manifest."""
    settings = run.student / "student.json"
    if not settings.is_file():
        manifest.evaluation = None  # a new student is being made
    elif manifest.evaluation and manifest.evaluation.student_digest != read_json(settings)["digest"]:
        manifest.evaluation = None


def _build_evaluation_record(
    evaluation: "StudentEvaluation", student_digest: str, weights: str | None = None
) -> EvaluationRecord:
    """The part of an evaluation that the run's manifest keeps. `weights` is the hash of the file that was asked."""
    assert evaluation.first_seed is not None, "the recipe was checked: its seeds ask questions"
    models = [
        ModelPassRecord(
            role=row.role,
            model=Path(row.model).name
            if row.role == "student"
            else row.model,  # a manifest is copied to other machines
            passed=row.passed,
            pass_rate=row.pass_rate,
        )
        for row in evaluation.rows
        if row.passed is not None and row.pass_rate is not None
    ]
    return EvaluationRecord(
        student_digest=student_digest, requests=evaluation.seeds, first_seed=evaluation.first_seed, type=evaluation.type,
        weights=weights, models=models, comparisons=evaluation.comparisons, example=evaluation.examples[0].question,
        panel=evaluation.panel, spent=evaluation.spent,
    )  # fmt: skip


@contextmanager
def stopwatch(manifest: RunManifest, stage: str) -> Iterator[None]:
    """Add the wall time of a stage to the manifest, so that a resumed run counts all its time."""
    started = time.monotonic()
    try:
        with (
            find_trace().hold_stage(stage),
            SESSION.working(lambda: f"{stage}: running for {format_duration(time.monotonic() - started)}"),
        ):
            yield
    finally:
        manifest.seconds[stage] = round(manifest.seconds.get(stage, 0.0) + time.monotonic() - started, 1)
