"""Handing the deployments of `prefect.yaml` to a Prefect server, and starting one of them there: Prefect's own commands."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UsageError
from core.recipe import PROJECT

POOL = "stillhouse"


def check_server() -> str:
    """Where the server is. Raises UsageError where none is named: a temporary one would forget what it was told."""
    from prefect.settings import get_current_settings

    if url := get_current_settings().api.url:
        return url
    raise UsageError(
        "no Prefect server is named; start one with `prefect server start`, then "
        "`export PREFECT_API_URL=http://127.0.0.1:4200/api`"
    )


def deploy(notify: str | None = None, secrets: Sequence[str] = ()) -> list[str]:
    """Make the work pool if it is not there, deploy all that `prefect.yaml` holds, and the automations.

    Args:
        notify: The notification block that is told of a refused release, as TYPE/NAME.
        secrets: VARIABLE=BLOCK: variables of the runs' environment, and the Secret blocks that their values come from.

    Returns:
        The names of the automations.

    Raises:
        UsageError: with what Prefect said, if it refused, or if there is no such block.
    """
    check_server()
    from flows.automations import automate
    from flows.blocks import find_notifier, find_secret

    block = find_notifier(notify) if notify else None
    environment = dict(map(find_secret, secrets))
    if subprocess.run(
        [*PREFECT, "work-pool", "inspect", POOL], cwd=PROJECT, capture_output=True, check=False
    ).returncode:
        _prefect("work-pool", "create", POOL, "--type", "process")
    if environment:
        add_to_environment(environment)
    _prefect("--no-prompt", "deploy", "--all")
    return automate(block)


def add_to_environment(more: Mapping[str, str]) -> None:
    """Into the environment of every run of the work pool, by its base job template. What deployments add comes on top."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolUpdate

    with get_client(sync_client=True) as client:
        template = client.read_work_pool(POOL).base_job_template
        variable = template["variables"]["properties"]["env"]
        variable["default"] = {**(variable.get("default") or {}), **more}
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))


PREFECT = (sys.executable, "-m", "prefect")


def deployments() -> list[str]:
    """Those of `prefect.yaml`, as FLOW/NAME."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        flows = {one.id: one.name for one in client.read_flows()}
        found = [f"{flows[one.flow_id]}/{one.name}" for one in client.read_deployments() if one.flow_id in flows]
    return sorted(name for name in found if name.startswith("stillhouse-"))


def _prefect(*words: str) -> None:
    child = subprocess.run(
        [*PREFECT, *words], cwd=PROJECT, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PREFECT_CLI_COLORS": "false"},
    )  # fmt: skip
    if child.returncode:
        raise UsageError(f"prefect {' '.join(words)}: {' '.join(child.stdout.split())[-600:]}")


def start(deployment: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Ask the server for a run of a deployment, `FLOW/NAME` or `NAME` for one of the run's; does not wait for it.

    Raises:
        UsageError: if there is no such deployment, or it takes no such parameters.
    """
    url = check_server()
    from prefect.deployments.flow_runs import arun_deployment
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    name = deployment if "/" in deployment else f"stillhouse-run/{deployment}"
    try:
        called = Path(str(parameters["recipe"])).stem
        made = asyncio.run(arun_deployment(name, parameters=dict(parameters), timeout=0, flow_run_name=called))
    except ObjectNotFound:
        raise UsageError(f"{name}: {url} has no such deployment; make it with `stillhouse deploy`") from None
    except PrefectHTTPStatusError as error:
        raise UsageError(f"{name}: {url} refused it: {error.response.text[:300]}") from None
    return {
        "deployment": name, "flow_run": str(made.id), "name": made.name,
        "page": f"{url.removesuffix('/api')}/runs/flow-run/{made.id}",
    }  # fmt: skip


def started_text(told: Mapping[str, str]) -> str:
    name = told["flow_run"]
    return f"flow run {told['name']}  {name}\n  page  {told['page']}\nnext: prefect flow-run inspect {name}"
