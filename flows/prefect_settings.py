"""How Prefect runs inside a command: patient at the start, silent on the terminal, without heartbeats.

Settings of the user's environment win: with PREFECT_API_URL set, the run is recorded by that server, and none is started.
"""

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

from flows.session import Session

DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
}


@contextmanager
def quiet_prefect(session: Session) -> Iterator[None]:
    """Set defaults, import Prefect, and say so, since its own server takes ten seconds or more to start."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    server = os.environ.get("PREFECT_API_URL")
    session.note(f"Prefect: recording at {server}" if server else "Prefect: starting its server, 10 to 30 seconds")
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    _shield_server()
    logging.getLogger("prefect").setLevel(logging.CRITICAL)
    # A heartbeat costs a second at the end of each flow run, and the variable cannot turn it off.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def _shield_server() -> None:
    """Start Prefect's own server in a process group of its own: a terminal sends Ctrl-C to all of ours, and without the
    server a flow cannot end in order. Prefect 3.9 has no setting for it.
    """
    from prefect.server.api import server

    popen = partial(subprocess.Popen, process_group=0)
    vars(server)["subprocess"] = SimpleNamespace(**{**vars(subprocess), "Popen": popen})
