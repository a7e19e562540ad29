"""Creates the deployments of `prefect.yaml` on a Prefect server, with the blocks that an operator names, and starts one."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UsageError
from core.project_files import PROJECT, SHIPPED
from flows.prefect_server.local_server import REFUSED_STATUSES, check_server_access, read_access_status
from flows.recipes.recipe_catalog import read_recipe_name

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import BlockDocument

WORK_POOL = "stillhouse"
DEPLOYMENTS = "prefect.yaml"
"""A file of the checkout; in the wheel it is in the folder `stillhouse`."""
OUR_PROJECT = re.compile(r"^name: stillhouse\s*$", re.MULTILINE)
"""Matches our `prefect.yaml`; that of another project is ignored."""
PREFECT_COMMAND = (sys.executable, "-m", "prefect")


def check_prefect_server() -> str:
    """The server's address. Raises UsageError if no server is named, since a temporary server would lose the deployments, or if
    the server refuses this command.
    """
    from prefect.settings import get_current_settings

    if url := get_current_settings().api.url:
        check_server_access(url)
        return url
    raise UsageError(
        "no Prefect server is named; start one with `prefect server start` and a secret (plugins/schedules/README.md), then "
        "`export PREFECT_API_URL=http://127.0.0.1:4200/api PREFECT_API_AUTH_STRING=USER:PASSWORD`"
    )


def deploy_all(notify: str | None = None, secrets: Sequence[str] = (), *, allow_open_server: bool = False) -> list[str]:
    """Create the work pool if it does not exist, all deployments of `prefect.yaml`, and the automations.

    Args:
        notify: The notification block that receives refused releases, as TYPE/NAME.
        secrets: VARIABLE=BLOCK: variables of the runs' environment, and the Secret blocks with their values.
        allow_open_server: Deploy even if the server requires no secret.

    Returns:
        The names of the automations.

    Raises:
        UsageError: with Prefect's message if it refused; if a block does not exist; or if the server requires no secret.
    """
    url = check_prefect_server()
    if not allow_open_server:
        check_server_closed(url)
    from plugins.schedules.automations import create_automations

    folder = working_folder()
    block = _find_notification_block(notify) if notify else None
    environment = dict(map(_find_secret_block, secrets))
    _create_work_pool()
    if environment:
        _add_to_pool_environment(environment)
    _run_prefect(folder, "--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file(folder)))
    return create_automations(block)


def check_server_closed(url: str) -> None:
    """Raises UsageError if the server answers without a secret: anyone who reaches it could run programs on its workers."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    status = read_access_status({PREFECT_API_AUTH_STRING: None, PREFECT_API_KEY: None})
    if status is None:
        raise UsageError(f"{url}: no Prefect server answers at this address; start it, or correct PREFECT_API_URL")
    if status in REFUSED_STATUSES:
        return
    raise UsageError(
        f"{url}: this Prefect server requires no secret, so every user and every browser page on its machine could run programs "
        "on the workers, with their keys; start it with PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD and "
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS=http://127.0.0.1:4200 (plugins/schedules/README.md), or, if only "
        "trusted users can reach it, deploy with --allow-open-server"
    )


def _find_notification_block(named: str) -> "UUID":
    """The id of the notification block `named`, as TYPE/NAME. Raises UsageError if there is no such block."""
    kind, _, name = named.partition("/")
    advice = (
        "give TYPE/NAME of a notification block, as in slack-webhook/ops; create it on the Prefect page under Blocks"
    )
    block = _read_block(kind, name)
    if block is None:
        raise UsageError(f"--notify {named}: the server has no such block; {advice}")
    if block.block_schema and "notify" not in block.block_schema.capabilities:
        raise UsageError(f"--notify {named}: this block cannot notify; {advice}")
    return block.id


def _find_secret_block(given: str) -> tuple[str, str]:
    """A variable, and the placeholder that a worker replaces with the value of a Secret block. The value is not read here.

    Raises:
        UsageError: if `given` is not VARIABLE=BLOCK, or there is no such block.
    """
    variable, equals, name = given.partition("=")
    if not (variable.isidentifier() and equals and name):
        raise UsageError(f"--secret {given}: give VARIABLE=BLOCK, as in OPENAI_API_KEY=openai")
    if _read_block("secret", name) is None:
        raise UsageError(
            f"--secret {given}: the server has no Secret block {name!r}; create it on the Prefect page under Blocks"
        )
    return variable, f"{{{{ prefect.blocks.secret.{name} }}}}"


def _read_block(kind: str, name: str) -> "BlockDocument | None":
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            return client.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound:
            return None


def working_folder() -> Path:
    """The working folder of deployments, from which relative paths start: the checkout, or the current folder if Stillhouse is
    installed.
    """
    return PROJECT if SHIPPED == PROJECT else Path.cwd()


def prefect_file(folder: Path) -> Path:
    """The `prefect.yaml` in `folder` if it is ours, else the installed one."""
    own = folder / DEPLOYMENTS
    is_ours = own.is_file() and OUR_PROJECT.search(own.read_text(encoding="utf-8"))
    return own if is_ours else PROJECT / DEPLOYMENTS


def _create_work_pool() -> None:
    """Create the work pool if it does not exist. Raises UsageError if the server refuses it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, ObjectUnsupported, PrefectHTTPStatusError
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(WORK_POOL)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            pool = WorkPoolCreate(name=WORK_POOL, type=ProcessWorker.type, base_job_template=template)
            try:
                client.create_work_pool(pool)
            except ObjectAlreadyExists:  # by another `stillhouse deploy`
                pass
            except (ObjectUnsupported, PrefectHTTPStatusError) as error:
                raise UsageError(f"the work pool {WORK_POOL}: the server refused it: {error}") from None


def _add_to_pool_environment(more: Mapping[str, str]) -> None:
    """Add variables to the environment of every run of the work pool, in its base job template. Deployments can override them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolUpdate

    with get_client(sync_client=True) as client:
        template = client.read_work_pool(WORK_POOL).base_job_template
        variable = template["variables"]["properties"]["env"]
        variable["default"] = {**(variable.get("default") or {}), **more}
        client.update_work_pool(WORK_POOL, WorkPoolUpdate(base_job_template=template))


def list_deployments() -> list[str]:
    """The deployments of `prefect.yaml` on the server, as FLOW/NAME."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        flows = {flow.id: flow.name for flow in client.read_flows()}
        deployments = [d for d in client.read_deployments() if d.flow_id in flows]
        names = [f"{flows[deployment.flow_id]}/{deployment.name}" for deployment in deployments]
    return sorted(name for name in names if name.startswith("stillhouse-"))


def _run_prefect(folder: Path, *words: str) -> None:
    commit = {} if SHIPPED == PROJECT else {"STILLHOUSE_COMMIT": version("stillhouse")}
    child = subprocess.run(
        [*PREFECT_COMMAND, *words], cwd=folder, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **commit, "PREFECT_CLI_COLORS": "false"},
    )  # fmt: skip
    if child.returncode:
        raise UsageError(f"prefect {' '.join(words)}: {' '.join(child.stdout.split())[-600:]}")


def choose_recipe_title(recipe: str, overrides: Sequence[str] = (), otherwise: str | None = None) -> str:
    """The name of the recipe's flow run: the recipe's name. If it cannot be read here: `otherwise`, or the recipe's path."""
    try:
        return read_recipe_name(recipe, overrides)
    except UsageError:
        return otherwise or recipe


def start_deployment(deployment: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Start a run of a deployment, without waiting for it. `NAME` alone is short for `stillhouse-run/NAME`.

    Raises:
        UsageError: if the deployment does not exist, or does not accept the parameters.
    """
    url = check_prefect_server()
    from prefect.deployments.flow_runs import arun_deployment
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    name = deployment if "/" in deployment else f"stillhouse-run/{deployment}"
    try:
        title = choose_recipe_title(str(parameters["recipe"]), parameters.get("overrides", ()))
        flow_run = asyncio.run(arun_deployment(name, parameters=dict(parameters), timeout=0, flow_run_name=title))
    except ObjectNotFound:
        raise UsageError(f"{name}: {url} has no such deployment; create it with `stillhouse deploy`") from None
    except PrefectHTTPStatusError as error:
        raise UsageError(f"{name}: {url} refused it: {error.response.text[:300]}") from None
    return {
        "deployment": name, "flow_run": str(flow_run.id), "name": flow_run.name, "recipe": str(parameters["recipe"]),
        "page": f"{url.removesuffix('/api')}/runs/flow-run/{flow_run.id}",
    }  # fmt: skip


def format_started_run(started: Mapping[str, str]) -> str:
    lines = [f"flow run {started['name']}  {started['flow_run']}", f"  page    {started['page']}"]
    if Path(started["recipe"]).is_absolute():
        lines.append(f"  recipe  {started['recipe']}, which the worker reads at this path")
    return "\n".join([*lines, f"next: prefect flow-run inspect {started['flow_run']}"])
