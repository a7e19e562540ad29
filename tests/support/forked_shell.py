"""Lines of shell whose commands are forks of a process that has loaded their imports."""

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from core.project_files import PROJECT
from tests.support.forked import FORKS

FORKED = ("stillhouse", "prefect", "dask")
"""Commands that run as forks, of this checkout or of a package."""
FORKED_PYTHON = f"""\
#!/bin/sh
shift 2
exec {shlex.quote(sys.executable)} -S {shlex.quote(str(PROJECT / "tests/support/forked_command.py"))} 0 "$@"
"""
"""What `torchrun` runs as `python -u -m MODULE` is a fork too: of its files, only the input is inherited, so that is where
requests are sent."""


def forked(command: str) -> str:
    """The shell's words for one of FORKED."""
    module = {"torchrun": "torch.distributed.run"}.get(command, command)
    forks = str(FORKS.requests.fileno())
    return shlex.join([sys.executable, "-S", str(PROJECT / "tests/support/forked_command.py"), forks, module])


def run_shell(text: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Lines as a user types them, with the command of this checkout; it stops at the first that fails."""
    functions = "".join(f'{command}() {{ {forked(command)} "$@"; }}\n' for command in FORKED)
    functions += f'torchrun() {{ {forked("torchrun")} "$@" <&{FORKS.requests.fileno()}; }}\n'
    return subprocess.run(
        ["bash", "-c", f"{functions}set -e\n{text}"], cwd=folder, env=environment,
        pass_fds=[FORKS.requests.fileno()], capture_output=True, text=True, check=False,
    )  # fmt: skip
