"""What `make test` does with its groups, with tools that only write down that they were called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from core.project_files import PROJECT

GROUPS = {"check": "format --check", "fast": "-m not slow", "waits": "-m waits", "slow": "-m slow and not waits"}


@pytest.mark.parametrize("failed", [(), ("fast",), ("check", "slow")])
def test_every_group_runs_and_those_that_failed_are_named(failed: tuple[str, ...], tmp_path: Path) -> None:
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copytree(PROJECT / "requirements", tmp_path / "requirements")
    for name in ("ruff", "mypy", "lint-imports", "python", "pytest"):
        cases = "\n".join(f'case "$*" in "{GROUPS[group]}"*) exit 1;; esac' for group in failed)
        (tools / name).write_text(f'#!/bin/sh\necho "$*" >> called\necho "{name} says $*"\n{cases}\n')
        (tools / name).chmod(0o755)
    for stamp in ("installed", "installed-all"):
        (tmp_path / ".venv" / stamp).touch()
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(["make", "test"], cwd=tmp_path, env=outside, text=True, capture_output=True, check=False)
    called = (tmp_path / "called").read_text()
    assert [group for group, words in GROUPS.items() if words not in called] == []
    for group, words in GROUPS.items():
        printed = done.stdout.partition(f"== {group}\n")[2].partition("\n== ")[0]
        assert f" says {words}" in printed, "what a group prints stays together"
    assert (done.returncode == 0) == (not failed)
    last = done.stdout.strip().splitlines()[-1]
    assert last == (f"failed: {' '.join(failed)}" if failed else "all groups passed")
