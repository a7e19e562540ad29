"""Opening a run: every mistake in its recipe is found before anything is written. Knows no Prefect."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from core.config.recipe import recipe_digest
from core.config.student_starts import find_start_fault
from core.errors import UsageError
from core.installation import format_install_command
from core.runs.lineage import choose_parent_release
from core.runs.records import RunInvocation
from core.runs.run_dir import RunDir, open_run
from flows.data.promoted_generator import use_promoted_generator
from flows.data.run_storage import RunStorage, open_run_storage
from flows.recipes.recipe_catalog import check_seeds, hash_recipe_sources, load_recipe_plan
from flows.run.pinned_weights import pin_hub_weights
from flows.terminal.suggested_commands import build_invocation, build_recipe_arguments, format_command

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from agents.planning.seeds import RunSeeds

TRAINING_MODULES = ("torch", "transformers", "tokenizers", "safetensors", "peft", "gguf")


class PreparedRun(NamedTuple):
    """A run that was opened once: its recipe is loaded, its plan built, its directory made or found. Nothing is locked."""

    run: RunDir
    plan: "RunPlan"
    seeds: "RunSeeds"
    """Of the recipe, not yet of the run."""
    storage: RunStorage
    invocation: RunInvocation
    unpinned_digest: str
    """Of the recipe as it is written, before weights of the Hub are pinned: a preview stores its estimate under it."""

    @property
    def distills(self) -> bool:
        """Whether the run includes the student's training."""
        return self.invocation.verb == "run"


def prepare_run(
    recipe: str, overrides: list[str], runs_dir: str, *, resume: bool, distill: bool = True, release: bool = False
) -> PreparedRun:
    """Load the recipe, build its plan, and make or find the run's directory.

    Raises:
        UsageError: if the recipe, a prompt or a seed cannot be used, or the student cannot be trained here. No directory is made.
        ProviderError: if weights of a teacher cannot be downloaded.
        RunExists, StoreError: as `choose_parent_release` and `open_run`.
    """
    from agents.planning.seeds import RunSeeds
    from agents.studies.general_panel import check_panel_tasks
    from agents.studies.held_out_evaluation import check_evaluation_requests

    invocation = build_invocation(recipe, overrides, distill=distill, release=release)
    storage = open_run_storage(runs_dir)
    plan = load_recipe_plan(recipe, overrides)
    if distill and plan.recipe.student:
        check_training_modules(recipe, overrides)
        if fault := find_start_fault(plan.recipe.student):
            raise UsageError(f"student.start: {plan.recipe.student.start!r} {fault}")
        if plan.recipe.student.evaluation and find_spec("xllamacpp") is None:
            raise UsageError(
                f"student.evaluation: asking a student needs the extra `local`: run {format_install_command('local')}; or leave "
                "the table out"
            )
    seeds = RunSeeds(plan, "opening")
    check_seeds(plan, seeds)
    if distill:
        check_evaluation_requests(plan)
        check_panel_tasks(plan)
    unpinned_digest = recipe_digest(plan.recipe, hash_recipe_sources(plan))
    plan = pin_hub_weights(plan, storage, resume=resume)
    sources = hash_recipe_sources(plan)
    storage.fetch_for_recipe(plan.recipe, sources)
    parent = choose_parent_release(storage.runs, plan.recipe, sources, resume=resume)
    used = use_promoted_generator(plan, parent, storage.runs)
    run = open_run(
        storage.runs, plan.recipe, sources, folder=plan.folder, resume=resume, parent=parent, invocation=invocation
    )
    return PreparedRun(run, used, seeds, storage, invocation, unpinned_digest)


def plan_next_run(plan: "RunPlan", runs_dir: str) -> "RunPlan":
    """The plan of the run that the next `run` of the recipe would begin: its generator may be a promoted student.

    Raises:
        UsageError, StoreError: as `use_promoted_generator`.
    """
    if not plan.recipe.lineage.promote:
        return plan
    storage = open_run_storage(runs_dir)
    storage.fetch_lineage(plan.recipe.name)
    parent = choose_parent_release(storage.runs, plan.recipe, hash_recipe_sources(plan), resume=False)
    return use_promoted_generator(plan, parent, storage.runs)


def check_training_modules(recipe: str, overrides: list[str]) -> None:
    """Raises UsageError if the extra `train` is not installed."""
    if missing := [name for name in TRAINING_MODULES if find_spec(name) is None]:
        alone = format_command("generate", *build_recipe_arguments(recipe, overrides))
        raise UsageError(
            f"student: training needs the extra `train` ({', '.join(missing)} is missing): run "
            f"{format_install_command('train')}; or `{alone}` makes the dataset alone"
        )
