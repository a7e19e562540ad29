"""A run in this process, recorded by a Prefect server. Prefect is imported once its settings are made."""

import asyncio
import gc
from typing import Any

from core.errors import RunFailed
from flows.prefect_server.local_server import configure_prefect
from flows.run.run_preparation import PreparedRun
from flows.terminal.console import SESSION


def run_locally(prepared: PreparedRun) -> dict[str, Any]:
    """Run an opened run through Prefect in this process. Returns the run's summary.

    Raises:
        StillhouseError, UserInterrupt: as the stages.
        RunFailed: if Prefect's server does not answer.
    """
    with configure_prefect(SESSION) as server:
        import httpx

        from flows.run.pipeline import run_as_flow

        gc.freeze()  # garbage collection would otherwise scan half a million imported objects each time
        try:
            return asyncio.run(run_as_flow(prepared))
        except httpx.TransportError as error:
            raise RunFailed(
                f"Prefect's server at {server} does not answer ({error}); finished samples are stored: continue with "
                "--resume, or unset PREFECT_API_URL to use a server that the command starts"
            ) from None
