"""The command that hands deployments to a Prefect server."""

from typing import Annotated

import typer

from flows.commands.shared import PREFECT, JsonOption, say, say_json

app = typer.Typer()


@app.command(rich_help_panel=PREFECT)
def deploy(
    *,
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE/NAME", envvar="STILLHOUSE_NOTIFY", help="A notification block, told of refused releases."
        ),
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option(
            "--secret", metavar="VARIABLE=BLOCK", help="For runs: a variable from a Secret block; repeatable."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hand all deployments of prefect.yaml to the Prefect server that PREFECT_API_URL names, with a work pool for them, and
    automations: a run whose process died goes on, a refused release is told.
    """
    from flows import deploying

    automations = deploying.deploy(notify, secrets or [])
    made = deploying.deployments()
    if as_json:
        told = {"work_pool": deploying.POOL, "deployments": made, "automations": automations}
        say_json({"state": "done", **told})
        return
    for name in (*made, *automations):
        say(name)
    if not notify:
        say("a refused release is told to nobody new; name a notification block: --notify TYPE/NAME")
    say(f"next: prefect worker start --pool {deploying.POOL}, and stillhouse run RECIPE --deployment once")
