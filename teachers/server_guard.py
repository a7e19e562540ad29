"""A server as a child process that never outlives this one. Knows nothing of what it serves.

Run as a program, this module is a guard process between the two, since a killed process cannot stop its children. The program
needs only the standard library.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import NamedTuple

POLL_SECONDS = 0.25
GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL: vLLM 0.32 ends in one second when ready, and ignores SIGTERM while it loads."""


class StartedServer(NamedTuple):
    """The address of a server that this process started."""

    url: str
    """Including `/v1`."""
    key: str
    """Required in each request: the port is open to every user of this machine and to the pages in their browsers."""
    fault: Callable[[], str | None] = lambda: None
    """Why it does not reply now, in one sentence; None while its process runs."""


async def start_guarded(
    command: Sequence[str], *, log: int, environment: Mapping[str, str], piped: bool = False, folder: Path | None = None
) -> asyncio.subprocess.Process:
    """Start the guard with the server `command` below it, in a session of their own: Ctrl-C ends calls in flight first.

    Args:
        command: the server's program and arguments, without secrets, since every user of the machine can read them.
        environment: all of the server's variables.
        log: an open file for stderr, and for stdout unless `piped`, since an unread pipe would fill up.
        piped: whether stdin and stdout are pipes of this process; stdin is empty otherwise.
        folder: its working directory; None for this process's.
    """
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", __file__, str(os.getpid()), *command),
        stdin=pipe if piped else asyncio.subprocess.DEVNULL,
        stdout=pipe if piped else log,
        stderr=log,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )


async def stop_guarded(process: asyncio.subprocess.Process) -> None:
    """End the server and its guard: by SIGTERM, and after `GRACE_SECONDS` by SIGKILL. Its pipes are closed first: a process that
    left the session may hold them open, and a wait for the guard is also one for their end.
    """
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]  # the class shows no public way
    for number in (0, 1):
        if pipe := transport.get_pipe_transport(number):
            pipe.close()
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE_SECONDS * 1.5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # needed only if the guard itself was killed
    await process.wait()
    transport.close()


def _guard_server(parent: int, command: list[str]) -> None:
    """Run `command` until it ends, `parent` is gone or SIGTERM arrives; then end all processes of this session.

    A server may start other processes, and all of them must end. Polling the parent's id works however the parent died;
    Linux's parent-death signal would reach only the first process, and is also sent when a thread of the parent ends.
    """
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = subprocess.Popen(command)
    while server.poll() is None and os.getppid() == parent and not stop.wait(POLL_SECONDS):
        pass
    if server.poll() is None:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_SECONDS)
    elif server.returncode < 0:
        name = signal.Signals(-server.returncode).name
        hint = "; was there enough memory?" if name == "SIGKILL" else f" ({name})"
        sys.stderr.write(f"guard: error: killed by signal {-server.returncode}{hint}\n")
        sys.stderr.flush()
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _guard_server(int(sys.argv[1]), sys.argv[2:])
