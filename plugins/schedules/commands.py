"""The commands `deploy`, which creates the deployments on a Prefect server, and `start`, which runs a recipe in one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    RELEASE_PANEL,
    JsonOption,
    RecipeArgument,
    RunsOption,
    SetOption,
    print_json,
    print_text,
)

app = typer.Typer()


@app.command("deploy", rich_help_panel=RELEASE_PANEL)
def deploy_command(
    *,
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE/NAME",
            envvar="STILLHOUSE_NOTIFY",
            help="A notification block for refused releases and promotions.",
        ),
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option(
            "--secret", metavar="VARIABLE=BLOCK", help="Set a variable of runs from a Secret block; repeatable."
        ),
    ] = None,
    allow_open_server: Annotated[
        bool,
        typer.Option(
            "--allow-open-server", help="Deploy even to a server without a secret, which only its network protects."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create the deployments of prefect.yaml, their work pool and automations on the server at PREFECT_API_URL.

    The automations resume a run whose process died, and report a refused release.
    """
    from plugins.schedules import deployment

    automations = deployment.deploy_all(notify, secrets or [], allow_open_server=allow_open_server)
    deployments = deployment.list_deployments()
    if as_json:
        print_json(
            {
                "state": "done",
                "work_pool": deployment.WORK_POOL,
                "deployments": deployments,
                "automations": automations,
            }
        )
        return
    for name in (*deployments, *automations):
        print_text(name)
    if not notify:
        print_text(
            "hint: no notification block receives refused releases; name a block: stillhouse deploy --notify TYPE/NAME"
        )
    print_text("hint: once a worker runs: stillhouse start RECIPE")
    print_text(f"next: prefect worker start --pool {deployment.WORK_POOL}")


@app.command("start", rich_help_panel=RELEASE_PANEL)
def start_command(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    runs_dir: RunsOption = RUNS_FOLDER,
    name: Annotated[str, typer.Option("--deployment", metavar="NAME", help="The deployment that runs it.")] = "once",
    as_json: JsonOption = False,
) -> None:
    """Start a run of a deployment on the Prefect server at PREFECT_API_URL, without waiting for it."""
    from flows.recipes.recipe_catalog import load_recipe_plan, resolve_recipe_name
    from plugins.schedules.deployment import format_started_run, start_deployment

    load_recipe_plan(recipe, overrides)  # checked before the server gets it
    parameters: dict[str, Any] = {"recipe": resolve_recipe_name(recipe), "overrides": overrides or []}
    if runs_dir != RUNS_FOLDER:  # absolute: the worker runs in another folder
        parameters["runs_dir"] = runs_dir if "://" in runs_dir else str(Path(runs_dir).resolve())
    started = start_deployment(name, parameters)
    print_json(started) if as_json else print_text(format_started_run(started))
