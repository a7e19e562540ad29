"""The Prefect server of commands that name none: the first starts it, the next find it there, and left alone it ends.

It is Prefect's own temporary server with Prefect's own database, but outlives the command. Whoever needs it holds a lock on a
file; the kernel lets go of locks when a process dies, so that no kill leaves anything to clean up.
"""

import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import IO, TYPE_CHECKING

from core.errors import RunFailed
from core.recipe import PROJECT
from core.store import write_text

if TYPE_CHECKING:
    from uvicorn import Server

IDLE_SECONDS = 600.0
START_SECONDS = 180.0
"""Database and all, on a busy machine; 3 to 10 seconds otherwise."""
POLL_SECONDS = 0.05
REVIVE_SECONDS = 3.0

logger = logging.getLogger("stillhouse")


@contextmanager
def local_server(home: Path, idle_seconds: float = IDLE_SECONDS) -> Iterator[str]:
    """The address of its API, which answers as long as this is open: one that dies is replaced at the same address. Its record
    is Prefect's, in `home`.

    Raises:
        RunFailed: if it does not start, or nothing can be written in `home`.
    """
    folder = _folder(home)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailed(
            f"{folder}: cannot hold what Prefect records: {error.strerror}; choose another place with PREFECT_HOME"
        ) from None
    over = Event()
    with (folder / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # one that is just ending ends first
        url = _found(folder, idle_seconds)
        Thread(target=_revive, args=(folder, idle_seconds, over), daemon=True).start()
        try:
            yield url
        finally:
            over.set()


def living(home: Path) -> int | None:
    """The process id of the one that has its record in `home`."""
    try:
        with (_folder(home) / "serving").open("r") as serving:
            return None if _taken(serving) else int(serving.read())
    except (FileNotFoundError, ValueError):
        return None


def stop(home: Path) -> None:
    """End it; commands that use it begin another."""
    if server := living(home):
        os.kill(server, signal.SIGTERM)


def _folder(home: Path) -> Path:
    """One for each machine, where they share a home."""
    return home / f"stillhouse-server-{version('prefect')}-{socket.gethostname()}"


def _found(folder: Path, idle_seconds: float) -> str:
    """The one that lives, or one that is started: of two commands at once, one starts it."""
    with (folder / "starting").open("a") as starting, (folder / "serving").open("a") as serving:
        fcntl.flock(starting, fcntl.LOCK_EX)
        child = None
        if _taken(serving):
            fcntl.flock(serving, fcntl.LOCK_UN)
            child = _start(folder, idle_seconds)
        return _told_by(folder, child)


def _revive(folder: Path, idle_seconds: float, over: Event) -> None:
    while not over.wait(REVIVE_SECONDS):
        try:
            _found(folder, idle_seconds)
        except (RunFailed, OSError) as error:
            logger.warning("the run goes on, but in no record: %s", error)
            return


def _address(folder: Path) -> Path:
    return folder / "address"


def _taken(file: IO[str]) -> bool:
    """Whether the lock on it could be had, for as long as it is open."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(folder: Path, idle_seconds: float) -> subprocess.Popen[bytes]:
    address = _address(folder)
    port = address.read_text(encoding="utf-8").rpartition(":")[2].partition("/")[0] if address.exists() else "0"
    address.unlink(missing_ok=True)
    with _log(folder).open("w") as told:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.local_server", str(folder), str(idle_seconds), port], cwd=PROJECT,
            stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
        )  # fmt: skip


def _told_by(folder: Path, child: subprocess.Popen[bytes] | None) -> str:
    """Where it is, once it answers. Whoever began it may have been killed meanwhile; a child that finds it there ends with 0."""
    end = time.monotonic() + START_SECONDS
    while not _address(folder).exists():
        if (child and child.poll()) or time.monotonic() > end:
            if child:
                child.kill()
            raise RunFailed(
                f"Prefect's server did not start within {START_SECONDS:.0f} s; {_log(folder)} says why; or name one that runs: "
                "`prefect server start`, then `export PREFECT_API_URL=http://127.0.0.1:4200/api`"
            )
        time.sleep(POLL_SECONDS)
    if child:
        child.returncode = 0  # it is to outlive this process: no warning that it still runs
    return _address(folder).read_text(encoding="utf-8")


def _log(folder: Path) -> Path:
    return folder / "log"


def serve(folder: Path, idle_seconds: float, port: int) -> None:
    """Be the server, at `port` if that is free, until nobody has held `users` for so long. Does nothing where there is one."""
    import uvicorn
    from prefect.server.api.server import create_app

    with (folder / "serving").open("a") as serving, socket.socket() as listener:
        if not _taken(serving):
            return
        serving.truncate(0)
        serving.write(str(os.getpid()))
        serving.flush()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server = uvicorn.Server(
            uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error", lifespan="on")
        )
        Thread(target=_look_after, args=(server, folder, url, idle_seconds), daemon=True).start()
        server.run(sockets=[listener])


def _look_after(server: "Server", folder: Path, url: str, idle_seconds: float) -> None:
    while not server.started:
        time.sleep(POLL_SECONDS)
    write_text(_address(folder), url)
    used = time.monotonic()
    users = (folder / "users").open("a")  # closed with the process: who comes while it ends waits for that
    while time.monotonic() - used < idle_seconds:
        time.sleep(min(5.0, idle_seconds / 4))
        if not _taken(users):
            used = time.monotonic()
        elif time.monotonic() - used < idle_seconds:
            fcntl.flock(users, fcntl.LOCK_UN)
    server.should_exit = True


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
