"""The local Prefect server of commands that name none: the first command starts it, later ones share it, and it stops when idle.

It is Prefect's own server with Prefect's own database. Commands that use it hold a lock on a file. The kernel releases locks
when a process dies, so a killed process leaves nothing to clean up.

Every user and every web page of a machine can reach a port on 127.0.0.1. So the server requires a random secret, stored in a
file that only the user can read, and rejects other origins and other host names (DNS rebinding).

`prefect server start --background` (3.9.1, measured) does not replace it. It needs a fixed port and returns 10 to 25 seconds
before the server answers. It never stops when idle. A second start fails instead of sharing the server, and after SIGKILL the
stale PID file blocks every start until `prefect server stop`. It accepts any Host header, and by default any origin.
"""

import asyncio
import fcntl
import gc
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from core.errors import RunFailed, UsageError
from core.project_files import PROJECT
from core.storage.atomic_files import write_text

if TYPE_CHECKING:
    from uvicorn import Server

    from flows.run.run_preparation import PreparedRun
    from flows.terminal.console import CommandSession

IDLE_SECONDS = 600.0
START_SECONDS = 180.0
"""Limit for the start on a busy machine; usually 3 to 6 seconds."""
POLL_SECONDS = 0.05
REVIVE_SECONDS = 3.0

PREFECT_DEFAULTS = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    # A server of the user's on the same database registers its block types itself: it must not find them memoized as registered.
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    # Written one by one, the records of many short shards queue up, and the server drops those beyond its queue.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
}

SERVER_VARIABLES = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")
REFUSED_STATUSES = (401, 403)

logger = logging.getLogger("stillhouse")

HOST = "127.0.0.1"


class PrefectServer(NamedTuple):
    url: str
    """The address of its API."""
    auth_string: str | None
    """USER:PASSWORD for `PREFECT_API_AUTH_STRING`. None: the user's settings apply."""


@contextmanager
def use_local_prefect_server(
    home: Path, idle_seconds: float = IDLE_SECONDS, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[PrefectServer]:
    """Yields the server's address and secret, and keeps it running: a server that dies is replaced, with the same address and
    secret. Its database is in `home`. `meanwhile` is called while this command's server starts.

    Raises:
        RunFailed: if the server does not start, or `home` cannot be written.
    """
    folder = _find_server_folder(home)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailed(
            f"{folder}: cannot store Prefect's records: {error.strerror}; choose another folder with PREFECT_HOME"
        ) from None
    closed = Event()
    with (folder / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a server that is about to stop
        server = _find_or_start_server(folder, idle_seconds, meanwhile)
        Thread(target=_revive_server, args=(folder, idle_seconds, closed), daemon=True).start()
        try:
            yield server
        finally:
            closed.set()


def find_live_server(home: Path) -> int | None:
    """The process id of the running server with its records in `home`; None if there is none."""
    try:
        with (_find_server_folder(home) / "serving").open("r") as serving:
            return None if _try_lock(serving) else int(serving.read())
    except (FileNotFoundError, ValueError):
        return None


def stop_local_server(home: Path) -> None:
    """Stop the server. Commands that use it start another."""
    if server := find_live_server(home):
        os.kill(server, signal.SIGTERM)


def _find_server_folder(home: Path) -> Path:
    """One folder per machine, since machines may share a home."""
    return home / f"stillhouse-server-{version('prefect')}-{socket.gethostname()}"


def _find_or_start_server(
    folder: Path, idle_seconds: float, meanwhile: Callable[[], object] = lambda: None
) -> PrefectServer:
    """The running server, or a new one, once it answers. Of two commands at once, one starts it."""
    with (folder / "starting").open("a") as starting, (folder / "serving").open("a") as serving:
        fcntl.flock(starting, fcntl.LOCK_EX)
        child = None
        auth_string = _read_or_create_secret(_find_secret_file(folder))
        if _try_lock(serving):
            fcntl.flock(serving, fcntl.LOCK_UN)
            child = _start_server(folder, idle_seconds)
            meanwhile()

        # The server's starter may be killed; a child that finds a running server exits with 0.
        address, end = _find_address_file(folder), time.monotonic() + START_SECONDS
        while not address.exists():
            if (child and child.poll()) or time.monotonic() > end:
                if child:
                    child.kill()
                raise RunFailed(
                    f"Prefect's server did not start within {START_SECONDS:.0f} s; see {_find_log_file(folder)}; or use your "
                    "own: `prefect server start`, then `export PREFECT_API_URL=http://127.0.0.1:4200/api`"
                )
            time.sleep(POLL_SECONDS)
        if child:
            child.returncode = 0  # the child outlives this process: suppresses the warning that it still runs
        return PrefectServer(address.read_text(encoding="utf-8"), auth_string)


def _find_secret_file(folder: Path) -> Path:
    return folder / "secret"


def _read_or_create_secret(file: Path) -> str:
    """The secret of all servers in this folder, so that commands keep working when another server takes over."""
    if not file.exists():
        partial = file.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as secret:
            secret.write(f"stillhouse:{secrets.token_urlsafe(32)}")
        partial.replace(file)
    return file.read_text(encoding="utf-8")


def _revive_server(folder: Path, idle_seconds: float, closed: Event) -> None:
    while not closed.wait(REVIVE_SECONDS):
        try:
            _find_or_start_server(folder, idle_seconds)
        except (RunFailed, OSError) as error:
            logger.warning("the run continues without a Prefect record: %s", error)
            return


def _find_address_file(folder: Path) -> Path:
    return folder / "address"


def _try_lock(file: IO[str]) -> bool:
    """Whether the file's lock was acquired. It is held while the file is open."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start_server(folder: Path, idle_seconds: float) -> subprocess.Popen[bytes]:
    address = _find_address_file(folder)
    port = address.read_text(encoding="utf-8").rpartition(":")[2].partition("/")[0] if address.exists() else "0"
    address.unlink(missing_ok=True)
    with _find_log_file(folder).open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(folder), str(idle_seconds), port], cwd=PROJECT,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
        )  # fmt: skip


def _find_log_file(folder: Path) -> Path:
    return folder / "log"


def _run_local_server(folder: Path, idle_seconds: float, port: int) -> None:
    """Run the server, at `port` if it is free, until no process held `users` for `idle_seconds`. Returns if one is running."""
    with (folder / "serving").open("a") as serving, socket.socket() as listener:
        if not _try_lock(serving):
            return
        serving.truncate(0)
        serving.write(str(os.getpid()))
        serving.flush()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            listener.bind((HOST, 0))
        origin = f"http://{HOST}:{listener.getsockname()[1]}"
        # Both are set before Prefect reads its settings.
        os.environ["PREFECT_SERVER_API_AUTH_STRING"] = _read_or_create_secret(_find_secret_file(folder))
        os.environ["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"] = origin
        gc.disable()  # no garbage among the objects of imports: to look for it takes a fifth of their time
        import uvicorn
        from prefect.server.api.server import create_app
        from prefect.settings import get_current_settings
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from flows.prefect_server.new_database import create_database

        settings, database = get_current_settings(), folder.parent / "prefect.db"
        url = settings.server.database.connection_url
        if url and url.get_secret_value() == f"sqlite+aiosqlite:///{database}":
            create_database(database)
        app = TrustedHostMiddleware(create_app(ephemeral=True, final=True), allowed_hosts=[HOST])
        gc.freeze()
        gc.enable()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        Thread(target=_stop_when_idle, args=(server, folder, f"{origin}/api", idle_seconds), daemon=True).start()
        server.run(sockets=[listener])


def _stop_when_idle(server: "Server", folder: Path, url: str, idle_seconds: float) -> None:
    while not server.started:
        time.sleep(POLL_SECONDS)
    write_text(_find_address_file(folder), url)
    used = time.monotonic()
    users = (folder / "users").open("a")  # closed with the process, so that a new command waits for its end
    while time.monotonic() - used < idle_seconds:
        time.sleep(min(5.0, idle_seconds / 4))
        if not _try_lock(users):
            used = time.monotonic()
        elif time.monotonic() - used < idle_seconds:
            fcntl.flock(users, fcntl.LOCK_UN)
    server.should_exit = True


def run_locally(prepared: "PreparedRun") -> dict[str, Any]:
    """Run an opened run through Prefect in this process. Returns the run's summary.

    Raises:
        StillhouseError, UserInterrupt: as the stages.
        RunFailed: if Prefect's server does not answer.
    """
    from flows.terminal.console import SESSION

    def import_pipeline() -> "Callable[[PreparedRun], Coroutine[Any, Any, dict[str, Any]]]":
        from flows.run.pipeline import run_as_flow

        return run_as_flow

    with configure_prefect(SESSION, import_pipeline) as server:
        import httpx

        gc.freeze()  # garbage collection would otherwise scan half a million imported objects each time
        try:
            return asyncio.run(import_pipeline()(prepared))
        except httpx.TransportError as error:
            raise RunFailed(
                f"Prefect's server at {server} does not answer ({error}); finished samples are stored: continue with "
                "--resume, or unset PREFECT_API_URL to use a server that the command starts"
            ) from None


@contextmanager
def configure_prefect(session: "CommandSession", meanwhile: Callable[[], object]) -> Iterator[str]:
    """Set defaults, import Prefect, find or start a server. Yields the server's address. `meanwhile` is called while a server
    starts, if it must. Afterwards the environment is as it was, so that a program's next call finds a server anew.

    Raises:
        RunFailed: if the server does not start.
        UsageError: if the named server requires a secret that this command does not have.
    """
    before = {name: os.environ.get(name) for name in (*PREFECT_DEFAULTS, *SERVER_VARIABLES)}
    try:
        with _record_at_server(session, meanwhile) as url:
            yield url
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _record_at_server(session: "CommandSession", meanwhile: Callable[[], object]) -> Iterator[str]:
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
    own = (
        nullcontext(PrefectServer(named, None))
        if named
        else use_local_prefect_server(settings.home, meanwhile=meanwhile)
    )
    with own as server:
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


def check_server_access(url: str) -> None:
    """Raises UsageError if the server requires a secret and this command has none or a wrong one."""
    if (status := read_access_status()) in REFUSED_STATUSES:
        raise UsageError(
            f"{url}: this Prefect server refuses the command ({status}); export PREFECT_API_AUTH_STRING=USER:PASSWORD, "
            "with the value of the server's PREFECT_SERVER_API_AUTH_STRING"
        )


def read_access_status(changed: dict[Any, Any] | None = None) -> int | None:
    """The status of a request that needs the secret; None if no server answers."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import temporary_settings

    with temporary_settings(changed or {}), get_client(sync_client=True) as client:
        try:
            return client.hello().status_code
        except PrefectHTTPStatusError as error:
            return error.response.status_code
        except httpx.TransportError:
            return None


if __name__ == "__main__":
    _run_local_server(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
