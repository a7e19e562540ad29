"""A finished student: find its folder, its run and its rows, export it, use it as a teacher and as the generator of the next run.
Knows nothing of training.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from core.config.recipe import ParentRelease
from core.config.teachers import STUDENT_PREFIX, TeacherConfig
from core.errors import RecipeError, UsageError
from core.runs.lineage import Lineage
from core.runs.releases import VerificationRecord, describe_verification, identify_model, locate_releases
from core.runs.run_dir import RUNS_FOLDER, RunDir
from core.sample import Message
from core.shared_options import EMBEDDER_FILE
from core.storage.bounded_reading import check_plain_folder
from core.storage.sample_files import read_sample_columns
from flows.data.stranger_files import find_trust_fault
from flows.rows.dataset_rows import read_all_rows
from flows.rows.row_forms import read_row_conversation

if TYPE_CHECKING:
    from agents.families.base import RecipeFamily
    from agents.planning.run_plan import RunPlan
    from students.gguf_export import ExportedStudent

STUDENT_EVALUATION_FILE = "evaluation.json"
"""In a student's folder: the results of `stillhouse evaluate`."""
ADAPTER_CONFIG = "adapter_config.json"
STUDENT_SLOTS = 8
"""Most concurrent conversations of a student."""


def find_student_folder(name: Path) -> Path:
    """The student in folder `name`, or of the run in folder `name` or with that name.

    Raises:
        UsageError: if there is none, or it is an adapter: its base model may be anything on the Hub.
    """
    for folder in (name, name / "student", Path(RUNS_FOLDER) / name / "student"):
        if (folder / ADAPTER_CONFIG).exists():
            raise UsageError(
                f"{folder}: has {ADAPTER_CONFIG}, so it is an adapter of peft; merge it into its base model first"
            )
        if (folder / "config.json").is_file():
            return folder
    raise UsageError(
        f"{name}: there is no student: neither it nor {name / 'student'} has a config.json; name its folder, or a run"
    )


def sees_images(student: Path) -> bool:
    """Whether the student in this folder was trained on images."""
    return (student / EMBEDDER_FILE).is_file()


def is_weights_file(name: Path) -> bool:
    """Whether it is a GGUF file, not a folder of a student or a run. Raises UsageError if the file does not exist."""
    if name.suffix == ".gguf" and not name.is_file():
        raise UsageError(f"{name}: there is no such file")
    return name.suffix == ".gguf"


def export_student(name: Path, kind: str) -> "ExportedStudent":
    from students.gguf_export import export_gguf

    return export_gguf(find_student_folder(name), kind)


def read_run_rows(
    run: RunDir | None,
    part: Literal["train", "validation"],
    read: Callable[[Mapping[str, Any]], list[Message]] = read_row_conversation,
) -> list[list[Message]]:
    """The conversations of a part of the run's dataset; none without a run, or where the dataset has none."""
    for dataset in (run.dataset, run.dataset / "messages") if run else ():
        file = dataset / f"{part}.parquet"
        if file.is_file() and "messages" in read_sample_columns(file).columns:
            return list(read_all_rows(file, read))
    return []


def find_student_run(student: Path) -> RunDir | None:
    """The run whose student is in this folder. Raises UsageError if a link is in the run."""
    run = RunDir(student.resolve().parent)
    if not run.recipe_file.is_file():
        return None
    check_plain_folder(run.path)
    return run


def load_student_plan(student: Path, run: RunDir | None, runs: Path | None = None) -> "RunPlan":
    """The plan of the student's run, as `load_run_plan`, after the seeds of the release that the run builds on.

    Raises:
        UsageError: also if the student belongs to no run.
    """
    if run is None:
        raise UsageError(
            f"{student}: is not the student of a run, so name the recipe to hold it to: --recipe RECIPE; rows of your "
            "own go with `stillhouse evaluate STUDENT --data FILE`"
        )
    return continue_lineage(load_run_plan(run, runs), run)


def load_run_plan(run: RunDir, runs: Path | None = None, option: str = "--recipe RECIPE") -> "RunPlan":
    """The plan of a run; `runs` is the user's own folder of runs, and `option` names a recipe instead.

    A run outside that folder is untrusted data: a recipe that would run, start or send a key to anything is rejected.

    Raises:
        UsageError: if a file of the recipe is missing, or the user must name the recipe.
    """
    recipe, folder = run.read_recipe(), run.read_recipe_folder()
    if fault := find_trust_fault(run, recipe, folder, runs or Path(os.environ.get("STILLHOUSE_RUNS", RUNS_FOLDER))):
        raise UsageError(f"{run.path}: {fault}", hint=f"hint: if you trust the recipe, name its file: {option}")
    from agents.planning.plan_building import build_plan

    try:
        return build_plan(recipe, folder)
    except RecipeError as error:
        sentence = f"{run.path}: cannot load the recipe of this run here: {error}"
        raise UsageError(sentence, hint=f"hint: name a recipe that can be loaded: {option}") from None


def continue_lineage(plan: "RunPlan", run: RunDir | None) -> "RunPlan":
    """The plan with its seeds after those of the release that the run builds on, if that is a release of the plan's recipe, and
    with the run's generator. Raises UsageError, StoreError: as `use_promoted_generator`.
    """
    parent = run.read_parent() if run else None
    if run is None or parent is None or parent.release.rpartition("/")[0] != plan.recipe.name:
        return plan
    return replace(use_promoted_generator(plan, parent, run.path.parent), run=run.path, first_seed=parent.seeds)


def configure_student_as_teacher(weights: Path, teacher: TeacherConfig) -> TeacherConfig:
    """The GGUF file as a teacher, with slots as long as its teacher's."""
    return _configure_like_teacher(f"local/{weights}", teacher)


def _configure_like_teacher(model: str, teacher: TeacherConfig) -> TeacherConfig:
    return TeacherConfig(
        model=model,
        max_concurrent=min(teacher.max_concurrent, STUDENT_SLOTS),
        slot_tokens=teacher.slot_tokens,
        gpu_layers=teacher.gpu_layers,
        threads=teacher.threads,
    )


def use_promoted_generator(plan: "RunPlan", parent: ParentRelease | None, runs: Path) -> "RunPlan":
    """The plan of a run in the folder `runs` that builds on `parent`. Its generator is the newest promoted student up to that
    release, if the recipe promotes students and there is one. Other agents keep their teachers.

    Raises:
        UsageError: if the recipe verifies less than when that student's data were made.
        StoreError: if a release is damaged.
    """
    if parent is None or not plan.recipe.lineage.promote:
        return plan
    from agents.planning.run_plan import PROMOTED_TEACHER

    release = Lineage(locate_releases(runs) / plan.recipe.name).find_promotion(parent)
    promotion = release and release.lineage.promotion
    if not release or not promotion or promotion.replaces != identify_model(plan.recipe.generator_teacher):
        return plan  # the student was compared with another generator than the recipe's
    if missing := promotion.verification.find_missing(describe_plan_verification(plan)):
        raise UsageError(
            f"{release.lineage.recipe}: its generator is the student of {release.name}, whose data were verified with "
            f"{'; '.join(missing)}, and the recipe no longer has that: restore it, or set lineage.promote = false"
        )
    student = _configure_like_teacher(f"{STUDENT_PREFIX}{release.name}", plan.recipe.generator_teacher)
    agents = plan.recipe.agents
    generator = agents.generator.model_copy(update={"teacher": PROMOTED_TEACHER})
    return plan.with_recipe(
        teachers={**plan.recipe.teachers, PROMOTED_TEACHER: student.in_release(release.path)},
        agents=agents.model_copy(update={"generator": generator}),
    )


def describe_plan_verification(plan: "RunPlan") -> VerificationRecord:
    return describe_verification(
        plan.recipe, plan.own_sources, asks=plan.check_calls > 0,
        writing_prompts=list_writing_prompts(plan.family),
    )  # fmt: skip


def list_writing_prompts(family: "RecipeFamily") -> frozenset[str]:
    """The prompts with which candidates are written, not judged."""
    return frozenset({*family.writes, *family.revises, "repair", "debate"})
