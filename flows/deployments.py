"""What Prefect deploys (`prefect.yaml`): the flow of a run, the flow that releases, and the flow that distills a release.

A deployment's run goes on where an earlier one with the same parameters was stopped, so a retry, another worker or the next
tick of a schedule takes over what a dead one left. Progress is printed, and so is a log of the flow run.
"""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Failed

from core.errors import GateNotMet, UsageError
from core.release import find_release
from core.run import RUNS, RunDir, RunState
from flows.automations import NOT_MET, REFUSED, RELEASED
from flows.curation import distill_dataset, parse_student
from flows.pipeline import run_flow
from flows.places import place_of
from flows.recipes import load
from flows.releasing import release_run, released_text
from flows.session import SESSION

run = run_flow.with_options(log_prints=True)


@flow(name="stillhouse-release", flow_run_name="{recipe}", log_prints=True)
def release(recipe: str, runs_dir: str = RUNS) -> State[Any] | dict[str, Any]:
    """Release the newest finished run of the recipe; where its gate is not met, the state is Failed and called GateNotMet.

    Args:
        recipe: A built-in recipe, or the path of a TOML file where the flow runs.
        runs_dir: Where runs are kept, a folder or s3://BUCKET/FOLDER; releases lie beside it.

    Raises:
        UsageError: if there is no finished run, or it does not build on the newest release.
        StoreError: if a file is damaged.
    """
    name = load(recipe, []).recipe.name
    place = place_of(runs_dir)
    place.fetch_runs(name)
    newest = newest_run(place.runs, name)
    about = {"prefect.resource.id": f"stillhouse.recipe.{name}", "prefect.resource.name": name}
    try:
        with place.releasing(name):
            made = release_run(newest)
    except GateNotMet as refused:
        emit_event(REFUSED, about, payload={"recipe": name, "run": newest.name, "why": str(refused)})
        return Failed(name=NOT_MET, message=str(refused))
    told = {"recipe": name, "release": made.release.name, "run": newest.name, "runs_dir": runs_dir}
    if not made.before:
        emit_event(RELEASED, about, payload=told)
    get_run_logger().info(released_text(made))
    return told


def newest_run(runs: Path, recipe: str) -> RunDir:
    """The run of the recipe that ended last. Raises UsageError where none has ended."""
    found = []
    for place in runs.glob(f"{recipe}-*/manifest.json"):
        run = RunDir(place.parent)
        manifest = run.read_manifest()
        if run.read_recipe().name == recipe and manifest.state in (RunState.done, RunState.partial):
            found.append((place.stat().st_mtime_ns, run))
    if not found:
        raise UsageError(f"{recipe}: no run of it in {runs} has ended; run it, then release it")
    return max(found, key=lambda one: one[0])[1]


@flow(name="stillhouse-distill", flow_run_name="{release}", log_prints=True)
def distill(
    release: str,
    settings: list[str] = [],  # noqa: B006  what Prefect's form takes
    seed: int = 7,
    runs_dir: str = RUNS,
) -> dict[str, Any]:
    """Train a student on a release, into `students/RECIPE/GENERATION` beside the runs.

    Args:
        release: RECIPE/GENERATION, or RECIPE for its newest release.
        settings: Keys of the student table, as in epochs=2.
        seed: Of all randomness.
        runs_dir: Where runs are kept, a folder or s3://BUCKET/FOLDER; releases lie beside it.

    Raises:
        UsageError: if there is no such release.
    """
    place = place_of(runs_dir)
    releases = place.lineage(release.partition("/")[0]).path.parent
    found = find_release(Path(release), releases)
    if found is None:
        raise UsageError(f"{release}: there is no such release in {releases}")
    out = place.runs.parent / "students" / found.name
    record = distill_dataset(found.path, out, parse_student(settings), seed, SESSION.note)
    return {"release": found.name, "out": str(out), "student": record.model_dump(mode="json")}
