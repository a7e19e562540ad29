"""The flows that `prefect.yaml` deploys: run a recipe, release a run, distill a release.

A flow run resumes an earlier one with the same parameters. So a retry, another worker or the next tick of a schedule
continues the run of a process that died. Progress is printed, and Prefect logs what is printed.
"""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import Abort
from prefect.states import Cancelled, Failed

from core.config.recipe import list_recipe_plugins
from core.errors import GateNotMet, RunInUse, StillhouseError, UsageError
from core.plugins import find_part
from core.runs.lineage import find_release
from core.runs.records import RunState
from core.runs.run_dir import RUNS_FOLDER, RunDir
from core.secrets import redact_text
from flows.data.run_storage import RunStorage, open_run_storage
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.release.release_creation import format_created_release, release_run
from flows.release.release_gate import format_promotion
from flows.run.dataset_distillation import distill_dataset, parse_student_settings
from flows.run.pipeline import execute_run
from flows.run.run_preparation import prepare_run
from flows.terminal.console import SESSION
from plugins.schedules.automations import (
    GATE_NOT_MET_STATE,
    PROMOTION_MADE_EVENT,
    PROMOTION_REFUSED_EVENT,
    RELEASE_MADE_EVENT,
    RELEASE_REFUSED_EVENT,
)
from plugins.schedules.cancellation import handle_cancellation
from plugins.schedules.deployment import choose_recipe_title

WATCHING = "drift"
"""The section of a recipe whose plugin probes hosted teachers before a run."""


def _name_flow_run() -> str:
    """The recipe's name. A recipe that cannot be read here leaves the name that the flow run has."""
    parameters = runtime.flow_run.parameters
    return choose_recipe_title(str(parameters["recipe"]), parameters.get("overrides") or (), str(runtime.flow_run.name))


@flow(name="stillhouse-run", flow_run_name=_name_flow_run, log_prints=True)
async def run(
    recipe: str,
    overrides: list[str] = [],  # noqa: B006  a list, since Prefect's form takes no tuple
    runs_dir: str = RUNS_FOLDER,
    resume: bool = True,
    distill: bool = True,
    release: bool = False,
) -> State[Any] | dict[str, Any]:
    """Run all stages of a recipe, from seeds to student and report. Returns the run's summary.

    With `release`, the finished run is released too, so that a schedule of this flow makes a generation each time. If the run has
    less than requested, or the release gate is not met, the state is Failed, named GateNotMet. If the run fails, the state is
    Failed with the error's sentence as its message. If another process works on the run, the state is Cancelled, as when Prefect
    limits a deployment to one run at a time.

    Args:
        recipe: A built-in recipe, or the path of a TOML file where the flow runs.
        overrides: Keys of the recipe, as in samples=500.
        runs_dir: Where runs are stored, a folder or s3://BUCKET/FOLDER; releases are stored next to it.
        resume: Resume the run if it exists.
        distill: Train the recipe's student too.
        release: Release the run when it is done.

    Raises:
        Abort: if another process works on this same flow run.
    """
    again = _has_run_before()
    try:
        with handle_cancellation(SESSION.stop):
            watched = _watch_teachers(recipe, overrides)
            prepared = prepare_run(recipe, watched, runs_dir, resume=resume or again, distill=distill)
            summary = await execute_run(prepared)
        if not release:
            return summary
        if summary["shortfalls"]:
            why = "; ".join([f"{prepared.run.name} is not released, since it is partial", *summary["shortfalls"]])
            return _refuse_release(prepared.plan.recipe.name, prepared.run, why)
        released = make_release(prepared.plan.recipe.name, prepared.run, prepared.storage, runs_dir)
        return {**summary, "release": released["release"]} if isinstance(released, dict) else released
    except RunInUse as error:
        if again:  # reported as crashed, the first process still lives, and will end this flow run itself
            raise Abort(str(error)) from None
        return Cancelled(message=redact_text(str(error)))
    except StillhouseError as error:  # Prefect would log a traceback if the error were raised
        return Failed(message=redact_text(str(error)))


def _watch_teachers(recipe: str, overrides: list[str]) -> list[str]:
    """The overrides, with the table by which a run asks whether its hosted teachers changed, unless the recipe has one."""
    known = find_part("section", WATCHING) is not None
    if not known or WATCHING in list_recipe_plugins(load_recipe_plan(recipe, overrides).recipe):
        return overrides
    return [*overrides, f"{WATCHING}={{}}"]


def _has_run_before() -> bool:
    """Whether this same flow run ran before: it was retried, taken over, or paused and resumed."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.total_run_time)


@flow(name="stillhouse-release", flow_run_name="{recipe}", log_prints=True)
def release(recipe: str, runs_dir: str = RUNS_FOLDER) -> State[Any] | dict[str, Any]:
    """Release the newest finished run of the recipe. If the release gate is not met, the state is Failed, named GateNotMet.

    Args:
        recipe: A built-in recipe, or the path of a TOML file where the flow runs.
        runs_dir: Where runs are stored, a folder or s3://BUCKET/FOLDER; releases are stored next to it.

    Raises:
        UsageError: if there is no finished run, or it does not build on the newest release.
        StoreError: if a file is damaged.
    """
    name = load_recipe_plan(recipe, []).recipe.name
    storage = open_run_storage(runs_dir)
    storage.fetch_runs(name)
    return make_release(name, _find_newest_run(storage.runs, name), storage, runs_dir)


def make_release(name: str, run: RunDir, storage: RunStorage, runs_dir: str) -> State[Any] | dict[str, Any]:
    """Release the run, and emit an event for the release and one for the promotion of its student. Returns the release's name, or
    the state of a refused release.

    Raises:
        UsageError, StoreError: as `create_release`.
    """
    try:
        created = release_run(run, storage)
    except GateNotMet as error:
        return _refuse_release(name, run, str(error))
    result = {"recipe": name, "release": created.release.name, "run": run.name, "runs_dir": runs_dir}
    if not created.already_released:
        emit_event(RELEASE_MADE_EVENT, _build_event_resource(name), payload=result)
        if promotion := created.release.lineage.promotion:
            decision = {
                "decision": "promoted" if promotion.promoted else "not promoted",
                "why": " ".join(f"{sentence}." for sentence in format_promotion(created.release)),
            }
            event = PROMOTION_MADE_EVENT if promotion.promoted else PROMOTION_REFUSED_EVENT
            emit_event(event, _build_event_resource(name), payload={**result, **decision})
    get_run_logger().info(format_created_release(created))
    return result


def _refuse_release(name: str, run: RunDir, why: str) -> State[Any]:
    emit_event(
        RELEASE_REFUSED_EVENT, _build_event_resource(name), payload={"recipe": name, "run": run.name, "why": why}
    )
    return Failed(name=GATE_NOT_MET_STATE, message=why)


def _build_event_resource(name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"stillhouse.recipe.{name}", "prefect.resource.name": name}


def _find_newest_run(runs: Path, recipe: str) -> RunDir:
    """The run of the recipe that finished last. Raises UsageError if no run has finished."""
    finished = []
    for file in runs.glob(f"{recipe}-*/manifest.json"):
        run = RunDir(file.parent)
        manifest = run.read_manifest()
        if run.read_recipe().name == recipe and manifest.state in (RunState.done, RunState.partial):
            finished.append((file.stat().st_mtime_ns, run))
    if not finished:
        raise UsageError(f"{recipe}: {runs} has no finished run of this recipe; run it, then release it")
    return max(finished, key=lambda dated: dated[0])[1]


@flow(name="stillhouse-distill", flow_run_name="{release}", log_prints=True)
def distill(
    release: str,
    settings: list[str] = [],  # noqa: B006  a list, since Prefect's form takes no tuple
    seed: int = 7,
    runs_dir: str = RUNS_FOLDER,
) -> dict[str, Any]:
    """Train a student on a release, in `students/RECIPE/GENERATION` next to the runs.

    Args:
        release: RECIPE/GENERATION, or RECIPE for its newest release.
        settings: Keys of the student table, as in epochs=2.
        seed: The random seed.
        runs_dir: Where runs are stored, a folder or s3://BUCKET/FOLDER; releases are stored next to it.

    Raises:
        UsageError: if there is no such release.
    """
    storage = open_run_storage(runs_dir)
    releases = storage.fetch_lineage(release.partition("/")[0]).path.parent
    found = find_release(Path(release), releases)
    if found is None:
        raise UsageError(f"{release}: no such release in {releases}")
    out = storage.runs.parent / "students" / found.name
    with handle_cancellation(SESSION.stop):
        record = distill_dataset(found.path, out, parse_student_settings(settings), seed, SESSION.print_unless_stopped)
    return {"release": found.name, "out": str(out), "student": record.model_dump(mode="json")}
