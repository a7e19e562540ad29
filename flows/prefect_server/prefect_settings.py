"""Prefect's settings inside a command: no terminal output, no heartbeats, and a server to record the run.

The user's settings take precedence: if they name a server, that server records the run and none is started.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from flows.prefect_server.local_server import PrefectServer, find_live_server, use_local_prefect_server
from flows.prefect_server.server_access import check_server_access
from flows.terminal.console import CommandSession

PREFECT_DEFAULTS = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    # Written one by one, the records of many short shards queue up, and the server drops those beyond its queue.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
}

SERVER_VARIABLES = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")


@contextmanager
def configure_prefect(session: CommandSession) -> Iterator[str]:
    """Set defaults, find or start a server, import Prefect. Yields the server's address. Afterwards the environment is as it was,
    so that a program's next call finds a server anew.

    Raises:
        RunFailed: if the server does not start.
        UsageError: if the named server requires a secret that this command does not have.
    """
    before = {name: os.environ.get(name) for name in (*PREFECT_DEFAULTS, *SERVER_VARIABLES)}
    try:
        with _record_at_server(session) as url:
            yield url
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _record_at_server(session: CommandSession) -> Iterator[str]:
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings
    from pydantic import SecretStr

    refresh_global_settings_context()  # of the environment and of Prefect's profiles
    settings = get_current_settings()
    if settings.api.url:
        session.print_unless_stopped(f"Prefect: recording at {settings.api.url}")
    elif find_live_server(settings.home) is None:
        session.print_unless_stopped("Prefect: starting a server for this and later commands; 3 to 20 seconds")
    named = settings.api.url
    with nullcontext(PrefectServer(named, None)) if named else use_local_prefect_server(settings.home) as server:
        # Values are set in place, since to read all of Prefect's settings again takes longer than to record a small run. The
        # environment is for processes that this one starts.
        os.environ["PREFECT_API_URL"] = settings.api.url = server.url
        if server.auth_string:
            os.environ["PREFECT_API_AUTH_STRING"] = server.auth_string
            settings.api.auth_string = SecretStr(server.auth_string)
        logging.getLogger("prefect").setLevel(logging.CRITICAL)
        if named:
            check_server_access(named)
        # A heartbeat costs a second at the end of each flow run, and the environment variable cannot turn it off.
        frequency, settings.flows.heartbeat_frequency = settings.flows.heartbeat_frequency, None
        try:
            yield server.url
        finally:
            settings.flows.heartbeat_frequency = frequency
