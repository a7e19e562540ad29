"""A sandbox for Python that a model wrote: no network, no host files, one scratch folder, limits on all resources.

One mechanism, our own launcher with Linux namespaces, seccomp and rlimits: bubblewrap and nsjail are only available from
system package managers, and a second mechanism would halve the testing of each. Knows no task and judges no result.
"""

import asyncio
import atexit
import marshal
import os
import re
import site
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

from agents.sandbox.launcher import LENGTH_BYTES
from agents.sandbox.system_calls import MACHINES, build_seccomp_filter
from core.errors import RunFailed

StopReason = Literal["wall time", "cpu time", "output", "file size"]
"""`file size`: the files it was to run did not fit, so nothing ran."""

OLDEST_KERNEL = (5, 14)
"""Since then processes are counted by user namespace; before, the limit would count all processes of the user."""
SANDBOX_REMEDY = (
    "code from a model runs nowhere else, so allow user and mount namespaces on Linux 5.14 or newer: root needs "
    "CAP_SYS_ADMIN, CAP_SETUID and the user number 65534; other users need the sysctls user.max_user_namespaces > 0, "
    "kernel.unprivileged_userns_clone = 1 and kernel.apparmor_restrict_unprivileged_userns = 0 where they exist; a "
    "container needs a seccomp profile that lets through unshare, mount and pivot_root"
)
INTERPRETER = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]  # what the environment was made from
PREFIX = "/python"
"""Where the interpreter is seen inside, so that no path of the host comes into a traceback."""
SYSTEM_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64")
VISIBLE_FILES = ("/etc/ld.so.cache", "/usr/share/zoneinfo")
LAUNCHER = Path(__file__).with_name("launcher.py")
START_LAUNCHER = "import marshal, sys; exec(marshal.load(sys.stdin.buffer))"
ENVIRONMENT = {
    "HOME": "/scratch",
    "TMPDIR": "/scratch",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "LD_LIBRARY_PATH": f"{PREFIX}/lib",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""All of it. `-I` would ignore the fixed hash seed, and nothing it protects from is in here."""
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class SandboxError(RunFailed):
    """No sandbox is available on this machine; the text names what is missing and what to do."""


class SandboxLimits(NamedTuple):
    """Altogether a run takes at most `processes * memory_mb + file_mb` of memory (and what the kernel buffers for 64 open
    files of each process), and every core for `wall_seconds`.
    """

    cpu_seconds: int = 5
    """Of each process; the run ends where its first process reaches it."""
    wall_seconds: float = 10.0
    """From the first process to the last, the interpreter's start (some 20 ms) included."""
    memory_mb: int = 256
    """Address space of each process, which is what its interpreter, its data and its threads' stacks may map."""
    processes: int = 8
    """With threads, and with the first."""
    output_bytes: int = 65_536
    """Of standard output and error together; a byte more ends the run."""
    file_mb: int = 16
    """The largest file, and the whole scratch folder, which is memory."""


class SandboxResult(NamedTuple):
    """The end of a program. Neither exit code nor output proves that tests passed: code can end its process at any line with
    any exit code (`os._exit(0)` during import), and can read tests in its folder and print their output.
    """

    exit_code: int | None
    """As in `subprocess`, a signal as a negative number; None if the program was stopped."""
    output: str
    """Standard output and error in the order of writing, truncated at the limit; invalid UTF-8 is replaced."""
    stopped: StopReason | None
    """The limit that ended it. Code that reaches a limit on memory, processes or files gets an ordinary exception
    (MemoryError, OSError) and may handle it."""
    seconds: float


DEFAULT_LIMITS = SandboxLimits()


async def run_python(
    files: Mapping[str, str], main: str, limits: SandboxLimits = DEFAULT_LIMITS, *, options: Sequence[str] = ()
) -> SandboxResult:
    """Run `files[main]` in a new sandbox, in a folder with `files` from which it may import.

    At most as many run at once as there are cores; other calls wait. All its processes have ended on return and on
    cancellation. It has the base interpreter's standard library and no package. `options` are the
    interpreter's: without `site` (`-S`) it starts faster.

    Raises:
        SandboxError: if no sandbox is available; then nothing ran.
        ValueError: if `main` is not in `files`, or a name is not a plain one.
    """
    request = _build_request(files, main, limits) | {"options": list(options)}
    sandbox = _Sandbox(request)
    job = _thread_pool(os.getpid()).submit(sandbox.run_checked)
    ran = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(ran)
    except asyncio.CancelledError:
        job.cancel()
        sandbox.stop()
        while not ran.done():  # another cancellation does not hurry it, since processes would be left
            with suppress(asyncio.CancelledError):
                await asyncio.wait({ran})
        if not ran.cancelled():
            ran.exception()
        raise


@cache
def sandbox_problem() -> str | None:
    """Why no sandbox is available, in one sentence, after running a trivial program in it; None if it works."""
    try:
        ran = _Sandbox(_build_request({"main.py": "print('here')"}, "main.py", DEFAULT_LIMITS)).run()
    except SandboxError as error:
        return str(error)
    if ran.output == "here\n":
        return None
    return f"no sandbox can be had here: a trivial program in it ends with {ran.exit_code}, {ran.stopped}: {ran.output}"


@cache
def _thread_pool(process: int) -> ThreadPoolExecutor:
    """One for all event loops, so that at most one sandbox runs per core and time limits stay fair."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sandbox")


class _Launcher:
    """A process of `launcher.py`, which builds one sandbox after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(INTERPRETER), "-I", "-S", "-B", "-c", START_LAUNCHER, str(LAUNCHER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"},
            cwd="/",
            start_new_session=True,
        )
        self._write(_compiled_launcher())
        self.receive()  # before, it would read more than its own program

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, request: bytes) -> None:
        self._write(len(request).to_bytes(LENGTH_BYTES, "little") + request)

    def receive(self) -> bytes:
        """Its next answer.

        Raises:
            SandboxError: if it ended.
        """
        assert self._process.stdout
        length = self._process.stdout.read(LENGTH_BYTES)
        answer = self._process.stdout.read(int.from_bytes(length, "little"))
        if len(length) == LENGTH_BYTES and len(answer) == int.from_bytes(length, "little"):
            return answer
        last = self._wait().decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise SandboxError(f"the sandbox's launcher ended with {self._process.returncode}: {last or 'no word'}")

    def stop(self) -> None:
        """End the sandbox that runs. The launcher can build no other: this would be the beginning of a request."""
        self._write(b"\n")

    def close(self) -> None:
        """End it while it builds no sandbox. A closed pipe might not, since forks of this process have it too."""
        self._process.kill()
        self._wait()

    def _wait(self) -> bytes:
        """What it wrote to its standard error, when it has ended."""
        assert self._process.stdin
        assert self._process.stderr
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with self._process:
            return self._process.stderr.read()

    def _write(self, message: bytes) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # `receive` reports the end of the launcher
            self._process.stdin.write(message)
            self._process.stdin.flush()


class _Sandbox:
    """One run, which another thread may stop."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = marshal.dumps(request)
        self._lock = Lock()
        self._launcher: _Launcher | None = None
        self._stopped = False

    def run_checked(self) -> SandboxResult:
        if problem := sandbox_problem():
            raise SandboxError(problem)
        return self.run()

    def run(self) -> SandboxResult:
        """Raises SandboxError if no sandbox is available."""
        launcher = _take_launcher()
        with self._lock:
            if self._stopped:
                launcher.close()
                raise SandboxError("the sandbox was stopped before it ran")
            self._launcher = launcher
            launcher.send(self._request)
        try:
            report = marshal.loads(launcher.receive())
        finally:
            with self._lock:
                self._launcher, stopped = None, self._stopped
        if stopped:
            launcher.close()
        else:
            _idle_launchers(os.getpid()).append(launcher)
        if problem := report.get("problem"):
            raise SandboxError(f"no sandbox can be had here: {problem}; {SANDBOX_REMEDY}")
        return SandboxResult(report["exit_code"], report["output"], report["stopped"], report["seconds"])

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._launcher:
                self._launcher.stop()


def _take_launcher() -> _Launcher:
    idle = _idle_launchers(os.getpid())
    while True:
        try:
            launcher = idle.pop()
        except IndexError:
            return _Launcher()
        if launcher.alive:
            return launcher
        launcher.close()


@cache
def _idle_launchers(process: int) -> list[_Launcher]:
    """Those of this process, which end with it."""
    return []


@atexit.register
def _close_launchers() -> None:
    for launcher in _idle_launchers(os.getpid()):
        launcher.close()


@cache
def _compiled_launcher() -> bytes:
    """It would take each launcher as long to compile it as to start."""
    return marshal.dumps(compile(LAUNCHER.read_bytes(), str(LAUNCHER), "exec", dont_inherit=True))


def _build_request(files: Mapping[str, str], main: str, limits: SandboxLimits) -> dict[str, Any]:
    if main not in files:
        raise ValueError(f"{main!r} is not among the files: {', '.join(files) or 'there are none'}")
    for name in files:
        if not PLAIN_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r}: a file's name here is letters, digits, `_`, `-` and `.`, and begins with no dot"
            )
    return {"files": dict(files), "main": main, "limits": limits._asdict(), "options": []} | _describe_host()


@cache
def _describe_host() -> dict[str, Any]:
    """The data about this machine that the launcher needs.

    Raises:
        SandboxError: if the machine does not support the sandbox.
    """
    uname = os.uname()
    if uname.sysname != "Linux" or tuple(map(int, re.findall(r"\d+", uname.release)[:2])) < OLDEST_KERNEL:
        raise SandboxError(f"no sandbox can be had here: {uname.sysname} {uname.release} is running; {SANDBOX_REMEDY}")
    if uname.machine not in MACHINES:
        known = " and ".join(MACHINES)
        raise SandboxError(f"no sandbox can be had here: its system calls are known for {known}, not {uname.machine}")
    python = f"{PREFIX}/bin/{INTERPRETER.name}"
    links = [path for path in SYSTEM_LIBRARIES if Path(path).is_symlink()]
    real = [path for path in (*SYSTEM_LIBRARIES, *VISIBLE_FILES) if Path(path).exists() and path not in links]
    prefix = [(f"{sys.base_prefix}/{lib}", f"{PREFIX}/{lib}") for lib in ("lib", "lib64")]
    return {
        "python": python,
        "environment": ENVIRONMENT,
        "filter": build_seccomp_filter(uname.machine).hex(),
        "links": [(path, str(Path(path).readlink())) for path in links],
        "shown": [
            (str(INTERPRETER), python),
            *((str(Path(path).resolve()), path) for path in real),
            *((str(Path(path).resolve()), target) for path, target in prefix if Path(path).is_dir()),
        ],
        "hidden": site.getsitepackages([PREFIX]),
    }
