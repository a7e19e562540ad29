"""The command that creates the deployments on a Prefect server."""

from typing import Annotated

import typer

from flows.commands.command_options import RELEASE_PANEL, JsonOption, print_json, print_text

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
    from flows.prefect_server import deployment_control

    automations = deployment_control.deploy_all(notify, secrets or [], allow_open_server=allow_open_server)
    deployments = deployment_control.list_deployments()
    if as_json:
        print_json(
            {
                "state": "done",
                "work_pool": deployment_control.WORK_POOL,
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
    print_text("hint: once a worker runs: stillhouse run RECIPE --deployment once")
    print_text(f"next: prefect worker start --pool {deployment_control.WORK_POOL}")
