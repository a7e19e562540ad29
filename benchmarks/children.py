"""A child process from start to end, or to the moment it is killed: exit code, CPU, memory of its whole tree."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.1
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


class FinishedProcess(NamedTuple):
    code: int
    """Negative: the signal that ended it."""
    seconds: float
    cpu: float
    """Seconds, user and system, of the child and of its children that it has waited for."""
    others: float
    """CPU seconds that the machine spent on anything else meanwhile, or that its host took: how quiet it was."""
    peak_kb: int
    """The most memory that its tree held at once, pages shared between processes counted once for each."""
    out: str
    err: str


def run_process(
    command: Sequence[str],
    *,
    more_env: Mapping[str, str] | None = None,
    timeout: float = 600,
    kill_when: Callable[[], bool] = lambda: False,
) -> FinishedProcess:
    """Run `command` in the project's folder; SIGKILL for its whole group when `kill_when` or after `timeout` seconds."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began, busy = time.monotonic(), _busy_seconds()
        child = subprocess.Popen(
            command, cwd=PROJECT, stdout=out, stderr=err, env={**os.environ, **(more_env or {})}, start_new_session=True
        )
        peak = _PeakMemory(child.pid)
        while (waited := os.wait4(child.pid, os.WNOHANG))[0] == 0:
            if kill_when() or time.monotonic() - began > timeout:
                os.killpg(child.pid, signal.SIGKILL)
                waited = os.wait4(child.pid, 0)
                break
            time.sleep(0.005)
        seconds = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(waited[1])
        peak.over.set()
        out.seek(0)
        err.seek(0)
        cpu = waited[2].ru_utime + waited[2].ru_stime
        others = max(_busy_seconds() - busy - cpu, 0.0)
        return FinishedProcess(child.returncode, seconds, cpu, others, peak.kb, out.read(), err.read())


def _busy_seconds() -> float:
    """CPU seconds of all cores since boot, but for idling and waiting for disks."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class _PeakMemory:
    """Watches a process and its descendants from a thread."""

    def __init__(self, pid: int) -> None:
        self.kb = 0
        self.over = threading.Event()
        self._pid = pid
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.over.wait(POLL_SECONDS):
            self.kb = max(self.kb, sum(map(read_resident_kb, list_descendants(self._pid))))


def list_descendants(pid: int) -> list[int]:
    """The process and its descendants; none where it has ended."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(found for child in children for found in list_descendants(child))]


def read_resident_kb(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KB
    except (OSError, IndexError):
        return 0
