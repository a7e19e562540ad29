"""The stop signal of a command: it may come at any moment."""

import signal
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from flows.terminal.console import CommandSession


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
