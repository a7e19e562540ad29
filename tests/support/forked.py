"""Python programs that fork from a process with their imports already loaded, so that a start costs almost nothing.

    python -m tests.support.forked SOCKET LOCK

All processes of a test session share one. Each program is a process with its own arguments, environment, folder, cores and
files, and gets real signals. One difference from a fresh interpreter: all programs of a session have the same hash seed.
Another: they end once their threads and exit functions have, without a last garbage collection.
"""

import atexit
import fcntl
import gc
import json
import os
import runpy
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from threading import Lock
from typing import TextIO

from core.plugins import list_plugins
from core.project_files import PROJECT
from tests.support import forked_command
from tests.support.forked_command import send_request

IMPORTED = (
    "tests.support.produce_run",
    "tests.support.run_command",
    "flows.commands.app",
    "flows.commands.release_commands",
    "flows.release.release_creation",
    "polars",
    "pyarrow",
    "pyarrow.parquet",
    "anyio._backends._asyncio",
    "fastapi",
    "filters.collapse.collapse_verdict",
    "flows.evaluate.dataset_assessment",
    "flows.prefect_server.flow_progress",
    "flows.prefect_server.local_server",
    "flows.report.pages",
    "flows.report.run_report",
    "flows.run.run_preparation",
    "flows.run.pipeline",
    "flows.terminal.run_summary",
    "graphviz",
    "langchain_core.tracers.run_collector",
    "langchain_core.tracers.stdout",
    "numpy.ma",
    "polars._utils.parquet",
    "prefect.artifacts",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "teachers.fake.fake_teacher",
    "teachers.fake.scripts.writer",
    "anthropic",
    "google.genai.types",
    "flows.commands.student_commands",
    "students.training.student_training",
    "torch.distributed.tensor",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)
"""Imports of any command, with those that it does later. None of them has worked in a thread."""
FOLDER = "FOLDER_OF_FORKS"
"""The variable with the folder where the processes of a session find their server."""
MESSAGE_BYTES = 2**17
NUMBER = struct.Struct("q")


class Program:
    """A forked program, with the part of `subprocess.Popen` that tests use. Without `stderr`, its errors are part of its
    output."""

    def __init__(self, stdout: TextIO, stderr: TextIO | None, status: int) -> None:
        self.stdout = stdout
        self.stderr = stderr
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

    def communicate(self) -> tuple[str, str]:
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(self.stderr.read) if self.stderr else None
            with self.stdout:
                output = self.stdout.read()
            errors = reading.result() if reading else ""
        if self.stderr:
            self.stderr.close()
        self.wait()
        return output, errors

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """Starts with the first program of a test session, and ends with the last process that has asked it for one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, module: str, *arguments: str, **environment: str) -> Program:
        """Run `python -m MODULE ARGUMENTS` in the project's folder, with these additions to the environment."""
        return self._start(module, arguments, environment, session=False)

    def start_session(self, module: str, *arguments: str, **environment: str) -> Program:
        """Start the same in a session of its own, with all that it starts; its errors are apart from its output."""
        return self._start(module, arguments, environment, session=True)

    def _start(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], *, session: bool
    ) -> Program:
        read_output, output = os.pipe()
        read_errors, errors = os.pipe() if session else (None, os.dup(output))
        read_status, status = os.pipe()
        with Path(os.devnull).open() as nothing:
            send_request(
                self.requests, module, arguments, {**os.environ, **environment}, str(PROJECT),
                [nothing.fileno(), output, errors, status], session,
            )  # fmt: skip
        for descriptor in (output, errors, status):
            os.close(descriptor)
        stderr = None if read_errors is None else os.fdopen(read_errors, encoding="utf-8")
        return Program(os.fdopen(read_output, encoding="utf-8"), stderr, read_status)

    def run(
        self,
        module: str,
        *arguments: str,
        folder: Path = PROJECT,
        stderr: int = subprocess.PIPE,
        typed: str | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run the same to its end, in any folder, with `typed` as its input; output and errors are captured."""
        requests = self.requests.fileno()
        return subprocess.run(
            [sys.executable, "-S", forked_command.__file__, str(requests), module, *arguments], cwd=folder, text=True,
            input=typed, env={**os.environ, **environment}, pass_fds=[requests], stdout=subprocess.PIPE, stderr=stderr,
            check=False,
        )  # fmt: skip

    @property
    def requests(self) -> socket.socket:
        """Where requests are sent, by this process or by those that inherit it."""
        with self._lock:
            if self._requests is None:
                self._requests = self._connect(Path(os.environ[FOLDER]))
            return self._requests

    def _connect(self, folder: Path) -> socket.socket:
        address, requests = folder / "requests", socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not address.exists():
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
                    listening.bind(str(address))
                    listening.listen()
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", "tests.support.forked", str(listening.fileno()), lock.name],
                        cwd=PROJECT, env={**os.environ, "OMP_NUM_THREADS": "1"}, pass_fds=[listening.fileno()],
                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    )  # fmt: skip
            requests.connect(str(address))
        return requests

    def close(self) -> None:
        if self._requests:
            self._requests.close()
        if self._process:  # which other processes may still ask
            self._process.wait()


FORKS = ForkServer()


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="forks")


def pytest_unconfigure() -> None:
    FORKS.close()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def load_what_programs_share() -> None:
    """Modules, the metadata of all packages and the compiled templates of pages, which each program would read."""
    for name in IMPORTED:
        import_module(name)
    list_plugins()
    from flows.data.dataset_card import TEMPLATES
    from flows.report.pages import create_page_environment
    from flows.terminal.text_format import create_environment

    for templates in (create_environment(), create_environment(TEMPLATES), create_page_environment()):
        for template in templates.list_templates():
            templates.get_template(template)


class Forks:
    """What a server knows: who may ask, and what runs."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._poll = select.poll()
        self._poll.register(listening, select.POLLIN)
        self._askers: dict[int, socket.socket] = {}
        self._running: dict[int, tuple[int, int]] = {}
        """By a descriptor that is readable when a program ends: its process id, and where its end is reported."""

    def serve(self, lock: Path) -> None:
        """Fork a program for each request and report how it ends, until nobody is left who asks."""
        self._welcome()
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._running:
                    self._report_end(descriptor)
                elif descriptor in self._askers:
                    self._answer(descriptor)
                else:
                    self._welcome()
            if not self._askers:
                with lock.open("a") as held:  # which who connects holds
                    fcntl.flock(held, fcntl.LOCK_EX)
                    if not select.select([self._listening], [], [], 0)[0]:
                        Path(self._listening.getsockname()).unlink(missing_ok=True)
                        return

    def _welcome(self) -> None:
        asker = self._listening.accept()[0]
        self._askers[asker.fileno()] = asker
        self._poll.register(asker, select.POLLIN)

    def _report_end(self, ended: int) -> None:
        program, status = self._running.pop(ended)
        self._poll.unregister(ended)
        with suppress(BrokenPipeError):
            os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])))
        os.close(status)
        os.close(ended)

    def _answer(self, asker: int) -> None:
        message, descriptors, _, _ = socket.recv_fds(self._askers[asker], MESSAGE_BYTES, 4)
        if not message:
            self._poll.unregister(asker)
            self._askers.pop(asker).close()
            return
        *files, status = descriptors
        if (program := os.fork()) == 0:
            for inherited in (self._listening, *self._askers.values()):
                inherited.close()
            for ended, (_, its_status) in self._running.items():
                os.close(ended)
                os.close(its_status)
            os.close(status)
            run_program(files, *json.loads(message))
        for file in files:
            os.close(file)
        with suppress(BrokenPipeError):
            os.write(status, NUMBER.pack(program))
        ended = os.pidfd_open(program)
        self._running[ended] = program, status
        self._poll.register(ended, select.POLLIN)


def run_program(
    files: Sequence[int], module: str, arguments: list[str], environment: Mapping[str, str], folder: str,
    session: bool, cores: list[int],
) -> None:  # fmt: skip
    """Become `python -m MODULE ARGUMENTS`, which ends without taking apart the modules that are shared: that would copy them
    all, and cost more than many a program."""
    if session:
        os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
    for descriptor in {*files} - {0, 1, 2}:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.sched_setaffinity(0, cores)
    os.chdir(folder)
    sys.path[0] = folder
    added = environment.get("PYTHONPATH", "").split(os.pathsep)  # as Python does at its start
    sys.path[1:1] = [path for path in added if path and path not in sys.path]
    if os.environ.get("PYTHONUNBUFFERED") and isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(write_through=True)
    if "prefect" in sys.modules and module != "tests.support.produce_run":  # which makes its samples without Prefect
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
    sys.argv[1:] = arguments
    sys.modules.pop(module, None)  # it runs again, as the main module
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does at its end, in this order
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)  # Python reports an output that nobody reads


if __name__ == "__main__":
    load_what_programs_share()
    gc.freeze()  # no collection of a program visits, and copies, what it shares with all others
    Forks(socket.socket(fileno=int(sys.argv[1]))).serve(Path(sys.argv[2]))
