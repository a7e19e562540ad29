"""The command line: its commands, in the order of its help, and how each ends. Heavy imports happen inside commands."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from core.errors import INTERRUPTED, StillhouseError, UsageError
from core.recipe import PROJECT
from flows.commands import dataset, deployment, look, release, results, run, student
from flows.session import Interrupted

EPILOG = "Exit codes: 0 done, 1 the run failed, 2 wrong use or recipe, 3 a gate was not met, 130 interrupted."
PACKAGES = ("core", "prompts", "agents", "filters", "students", "flows")

app = typer.Typer(
    help="One recipe in; a verified synthetic dataset and a small student model out.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (look, run, dataset, student, deployment, results, release):
    app.add_typer(part.app)


def check_packages() -> None:
    """Raises UsageError where another distribution's package (`agents` of openai-agents, say) stands before ours."""
    for name in PACKAGES:
        spec = find_spec(name)
        place = Path(spec.origin).parent if spec and spec.origin else None
        if place != PROJECT / name:
            raise UsageError(
                f"`{name}` is {place or 'not found'}, not {PROJECT / name}; run in the project's own environment (`make install`)"
            )


def main() -> None:
    """Run a command; a mistake of the user is one sentence on stderr and an exit code."""
    command: Callable[[], Any] = app
    try:
        check_packages()
        command()
    except Interrupted:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except StillhouseError as error:
        from core.run import redacted

        print(f"error: {redacted(str(error))}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
