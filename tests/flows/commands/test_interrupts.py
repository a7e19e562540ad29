"""Ctrl-C at several moments of a command's life. Each is an event: a module was imported, a line was printed."""

import os
import shlex
import signal
import subprocess
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from core.project_files import PROJECT
from flows.prefect_server.local_server import stop_local_server
from flows.terminal.console import CommandSession

MODULE = ("-m", "stillhouse")
SCRIPT = ("-c", "import sys; sys.argv[0] = 'stillhouse'; from flows.cli import main; sys.exit(main())")


def start(how: tuple[str, ...], *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "importtime", *how, *words], cwd=PROJECT, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def interrupted(process: subprocess.Popen[str], event: str) -> str:
    """What the command prints besides its imports after Ctrl-C at the first line of stderr that ends so."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.rstrip().endswith(event):
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err[-2000:]
    return "\n".join(line for line in err.splitlines() if not line.startswith("import time:"))


@pytest.mark.parametrize(
    ("module", "how"),
    [
        ("core.errors", MODULE),
        ("typer", MODULE),
        ("typer", SCRIPT),
        ("flows.commands.recipe_commands", MODULE),
        ("agents.planning.run_plan", SCRIPT),
        ("agents.studies.preview", MODULE),
    ],
)
def test_ctrl_c_during_an_import_prints_no_traceback(module: str, how: tuple[str, ...]) -> None:
    process = start(how, "preview", "smoke", "-n", "20", "--set", "teachers.main.extra={seconds=9}")
    assert interrupted(process, f" {module}").splitlines()[-1] == "interrupted"


def test_ctrl_c_is_ignored_where_the_caller_ignores_it() -> None:
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    process = start(("-c", f"{ignoring}; {SCRIPT[1]}"), "recipes")
    assert process.stderr is not None
    for line in process.stderr:
        if line.rstrip().endswith(" typer"):
            process.send_signal(signal.SIGINT)
            break
    out, _ = process.communicate(timeout=300)
    assert (process.returncode, "smoke\n" in out) == (0, True)


@pytest.mark.slow
def test_ctrl_c_at_the_first_line_of_progress_names_the_command_that_resumes(tmp_path: Path) -> None:
    options = ["--runs-dir", str(tmp_path / "runs"), "--release"]
    process = start(MODULE, "run", "smoke", *options, PREFECT_HOME=str(tmp_path / "prefect"))
    err = interrupted(process, "3 to 20 seconds")
    stop_local_server(tmp_path / "prefect")
    assert "Traceback" not in err
    assert err.splitlines()[-1] == f"next: stillhouse run smoke {shlex.join(options)} --resume"


class InterruptedFile(FileIO):
    """Ctrl-C is pressed while the first line is written."""

    pressed = False

    def write(self, line: Any) -> int:
        if not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)
        return super().write(line)


def test_a_signal_in_the_middle_of_a_line_stops_the_command_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, file = CommandSession(), tmp_path / "errors"
    with (
        TextIOWrapper(BufferedWriter(InterruptedFile(file, "w")), encoding="utf-8") as errors,
        monkeypatch.context() as m,
    ):
        m.setattr(sys, "stderr", errors)
        with session.handle_interrupts():
            session.show_progress(lambda: "produce: 1/24 samples")
    assert session.stop.is_set()
    stopping, line = file.read_text().splitlines()
    assert stopping.startswith("stopping: work in flight gets a few seconds")
    assert line == "produce: 1/24 samples"
