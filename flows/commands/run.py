"""Commands that make a dataset: all of it, or its first part."""

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import INTERRUPTED, RunFailed
from core.run import RUNS
from flows.commands.shared import (
    RUN,
    JsonOption,
    QuietOption,
    RecipeArgument,
    ResumeOption,
    RunsOption,
    SetOption,
    plan_of,
    say,
    say_json,
)
from flows.session import SESSION, Interrupted

if TYPE_CHECKING:
    from agents.plan import Plan


app = typer.Typer()


@app.command(rich_help_panel=RUN)
def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    runs_dir: RunsOption = RUNS,
    resume: ResumeOption = False,
    deployment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Have a deployment do it on a Prefect server; does not wait.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Do all of it: produce, curate, assess, package, and distill if the recipe has a student."""
    if deployment:
        _hand_over(deployment, recipe, overrides, runs_dir, as_json=as_json)
        return
    _run(recipe, overrides, runs_dir, resume=resume, as_json=as_json, quiet=quiet, distill=True)


@app.command(rich_help_panel=RUN)
def generate(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    runs_dir: RunsOption = RUNS,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Seeds to a dataset and its report; no student."""
    _run(recipe, overrides, runs_dir, resume=resume, as_json=as_json, quiet=quiet, distill=False)


def _run(
    recipe: str, overrides: list[str] | None, runs_dir: str, *, resume: bool, as_json: bool, quiet: bool, distill: bool
) -> None:
    """One run through Prefect, its card, and the command to go on with if it stops early."""
    from flows.card import run_card

    SESSION.quiet = quiet
    plan = plan_of(recipe, overrides)
    found = _open_for(plan, runs_dir, resume=resume)
    command = _command(recipe, overrides, runs_dir, "run" if distill else "generate")
    with SESSION.interruptible():
        try:
            summary = _through_prefect(recipe, overrides or [], runs_dir, distill=distill)
        except (Interrupted, KeyboardInterrupt):
            print(f"interrupted; what is finished is stored; go on with: {command} --resume", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from None
    say_json(summary) if as_json else say(run_card(found.read_manifest(), found, f"{command} --resume"))
    if summary["shortfalls"]:
        raise SystemExit(RunFailed.exit_code)


def _open_for(plan: "Plan", runs_dir: str, *, resume: bool) -> Any:
    """Make the run's directory or find it, before anything slow starts, so that a mistake is told at once."""
    from core.release import open_next
    from flows.places import place_of
    from flows.recipes import sources

    place = place_of(runs_dir)
    place.fetch_for(plan)
    return open_next(place.runs, plan.recipe, sources(plan), folder=plan.folder, resume=resume)


def _hand_over(deployment: str, recipe: str, overrides: list[str] | None, runs_dir: str, *, as_json: bool) -> None:
    """The recipe is checked here before the server hears of it; a path is told whole, since the worker stands elsewhere."""
    from flows.deploying import start, started_text

    plan_of(recipe, overrides)
    place = Path(recipe)
    asked = {"recipe": str(place.resolve()) if place.is_file() else recipe, "overrides": overrides or []}
    where = runs_dir if "://" in runs_dir else str(Path(runs_dir).resolve())
    told = start(deployment, {**asked, **({} if runs_dir == RUNS else {"runs_dir": where})})
    say_json(told) if as_json else say(started_text(told))


def _through_prefect(recipe: str, overrides: list[str], runs_dir: str, *, distill: bool) -> dict[str, Any]:
    import asyncio

    from flows.prefect_settings import quiet_prefect

    with quiet_prefect(SESSION) as server:
        import httpx

        from flows.pipeline import run_flow

        gc.freeze()  # half a million imported objects need not be gone through again at every collection
        try:
            result: dict[str, Any] = asyncio.run(run_flow(recipe, overrides, runs_dir, resume=True, distill=distill))
        except httpx.TransportError as gone:
            raise RunFailed(
                f"Prefect's server at {server} does not answer ({gone}); what is made is stored: go on with --resume, or "
                "unset PREFECT_API_URL for a server of the command's own"
            ) from None
    return result


def _command(recipe: str, overrides: list[str] | None, runs_dir: str, verb: str) -> str:
    import shlex

    parts = ["stillhouse", verb, recipe, *(part for o in overrides or [] for part in ("--set", o))]
    if runs_dir != RUNS:
        parts += ["--runs-dir", runs_dir]
    return shlex.join(parts)
