"""How Prefect runs inside a command: silent on the terminal, without heartbeats, at the server that is there.

Settings of the user win: where they name a server, the run is recorded by that one, and none is started.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from flows.local_server import living, local_server
from flows.session import Session

DEFAULTS = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    # One by one, the records of many short shards come faster than they are written, and the server drops what it cannot hold.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
}


@contextmanager
def quiet_prefect(session: Session) -> Iterator[str]:
    """Set defaults, find or start a server, import Prefect; where the server is.

    Raises:
        RunFailed: if the server does not start.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, Settings, temporary_settings

    settings = Settings()  # of the environment and of Prefect's profiles
    if settings.api.url:
        session.note(f"Prefect: recording at {settings.api.url}")
    elif living(settings.home) is None:
        session.note("Prefect: starting a server, for this command and the next ones; 3 to 20 seconds")
    with nullcontext(settings.api.url) if settings.api.url else local_server(settings.home) as url:
        os.environ["PREFECT_API_URL"] = url
        refresh_global_settings_context()
        logging.getLogger("prefect").setLevel(logging.CRITICAL)
        # A heartbeat costs a second at the end of each flow run, and the variable cannot turn it off.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield url
