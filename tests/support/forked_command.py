"""A command that runs `python -m MODULE ARGUMENTS` as a fork of a loaded process (`tests.support.forked`).

    python -S forked_command.py SOCKET MODULE ARGUMENTS

It hands on its folder, environment, standard files and SIGTERM, and exits as the program does. SOCKET is inherited. Needs only
the standard library, so that it starts in milliseconds.
"""

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


def send_request(
    requests: socket.socket, module: str, arguments: Sequence[str], environment: Mapping[str, str], folder: str,
    descriptors: Sequence[int], session: bool = False,
) -> None:  # fmt: skip
    """Ask for a program with these descriptors: its stdin, stdout and stderr, and a pipe for its process id and exit code."""
    cores = sorted(os.sched_getaffinity(0))
    request = [module, arguments, dict(environment), folder, session, cores]
    socket.send_fds(requests, [json.dumps(request).encode()], descriptors)


def run_forked_command() -> int:
    _, requests, module, *arguments = sys.argv
    read_status, status = os.pipe()
    with socket.socket(fileno=int(requests)) as sender:
        send_request(sender, module, arguments, os.environ, str(Path.cwd()), [0, 1, 2, status])
    os.close(status)
    with os.fdopen(read_status, "rb") as report:
        (program,) = struct.unpack("q", report.read(8))

        def hand_on(number: int, _frame: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(program, number)

        signal.signal(signal.SIGTERM, hand_on)
        code = int(struct.unpack("q", report.read())[0])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run_forked_command())
