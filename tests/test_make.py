"""What `make test` does with its groups, with tools that only write down that they were called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from core.project_files import PROJECT

STEPS = {
    "check": ["format --check", "docs/size.py", "deploy/without_plugins.py ;"],
    "fast": ["deploy/without_plugins.py -m not slow and not whole", "-m not slow and whole"],
    "waits": ["-m waits"],
    "slow": ["-m slow and not waits"],
}
"""How the commands of each group begin."""


@pytest.mark.parametrize(
    "failed",
    [{}, {"fast": 0}, {"fast": 1}, {"check": 0, "slow": 0}, {"check": 2}],
    ids=lambda failed: ", ".join(failed) or "none",
)
def test_every_group_runs_and_those_that_failed_are_named(failed: dict[str, int], tmp_path: Path) -> None:
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copytree(PROJECT / "requirements", tmp_path / "requirements")
    for name in ("ruff", "mypy", "lint-imports", "python", "pytest"):
        cases = "\n".join(f'case "$* ;" in "{STEPS[group][step]}"*) exit 1;; esac' for group, step in failed.items())
        (tools / name).write_text(f'#!/bin/sh\necho "{name} says $* ;"\n{cases}\n')
        (tools / name).chmod(0o755)
    for stamp in ("installed", "installed-all"):
        (tmp_path / ".venv" / stamp).touch()
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(["make", "test"], cwd=tmp_path, env=outside, text=True, capture_output=True, check=False)
    for group, steps in STEPS.items():
        printed = done.stdout.partition(f"== {group}\n")[2].partition("\n== ")[0]
        for step in steps[: 1 if failed.get(group) == 0 and group == "check" else None]:
            assert f" says {step}" in printed, "what a group prints stays together"
    assert (done.returncode == 0) == (not failed)
    last = done.stdout.strip().splitlines()[-1]
    assert last == (f"failed: {' '.join(failed)}" if failed else "all groups passed")
