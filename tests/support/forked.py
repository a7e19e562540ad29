"""Python programs that fork from a process with their imports already loaded, so that a start costs almost nothing.

    python -m tests.support.forked SOCKET

Each is a process with its own arguments, environment and output, and gets real signals. One difference from a fresh interpreter:
all programs of a test process have the same hash seed.
"""

import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from threading import Lock
from typing import TextIO

from core.project_files import PROJECT

IMPORTED = (
    "tests.support.produce_run",
    "tests.support.run_command",
    "flows.commands.app",
    "flows.commands.release_commands",
    "flows.release.release_creation",
)
MESSAGE_BYTES = 2**17
NUMBER = struct.Struct("q")


class Program:
    """A forked program, with the part of `subprocess.Popen` that tests use. Its errors are part of its output."""

    def __init__(self, stdout: TextIO, status: int) -> None:
        self.stdout = stdout
        self.returncode: int | None = None
        self._status = status
        self.pid = self._read()

    def _read(self) -> int:
        return int(NUMBER.unpack(os.read(self._status, NUMBER.size))[0])

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self._read()
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def communicate(self) -> tuple[str, None]:
        with self.stdout:
            output = self.stdout.read()
        self.wait()
        return output, None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """Starts with the first program, and ends when this process ends or closes it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, module: str, *arguments: str, **environment: str) -> Program:
        """Run `python -m MODULE ARGUMENTS` in the project's folder, with these additions to the environment."""
        request = json.dumps([module, arguments, {**os.environ, **environment}]).encode()
        read_output, output = os.pipe()
        read_status, status = os.pipe()
        with self._lock:
            socket.send_fds(self._connected(), [request], [output, status])
        os.close(output)
        os.close(status)
        return Program(os.fdopen(read_output, encoding="utf-8"), read_status)

    def _connected(self) -> socket.socket:
        if self._requests is None:
            self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.support.forked", str(theirs.fileno())], cwd=PROJECT, pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                )  # fmt: skip
        return self._requests

    def close(self) -> None:
        if self._requests and self._process:
            self._requests.close()
            self._process.wait()
            self._requests = self._process = None


FORKS = ForkServer()


def pytest_unconfigure() -> None:
    FORKS.close()


def serve(requests: socket.socket) -> None:
    """Fork a program for each request, until the other end closes."""
    for name in IMPORTED:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes each watcher when it ends
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 2)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            watch(*json.loads(message), *descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def watch(module: str, arguments: list[str], environment: Mapping[str, str], output: int, status: int) -> None:
    """Fork again: this process reports the program's process id and exit code. Returns in the program, when the program ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if program := os.fork():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(output)
        with suppress(BrokenPipeError):
            os.write(status, NUMBER.pack(program))
            os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])))
        os._exit(0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.close(status)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.modules.pop(module, None)  # it runs again, as the main module
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
