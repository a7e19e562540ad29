"""The entry point of the command line: interrupts, errors and exit codes. Knows no command.

Ctrl-C is handled before any heavy import, so that an interrupted import prints no traceback.
"""

import gc
import os
import signal
import sys

PACKAGES = ("core", "prompts", "teachers", "agents", "filters", "students", "flows", "plugins", "stillhouse")
INTERRUPTED_EXIT_CODE = 130
"""The same value as in `core.errors`, which is imported later."""


def main() -> None:
    """Run the command of this process. A user's mistake prints one sentence on stderr and sets the exit code.

    Ctrl-C exits with 130, unless the parent process ignores that signal (as `nohup` does).
    """
    gc.set_threshold(200_000)  # imports make half a million objects, none of them garbage
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handled:
        signal.signal(signal.SIGINT, _exit_at_once)
    from core.errors import StillhouseError
    from flows.terminal.console import UserInterrupt

    interrupted = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise UserInterrupt

    try:
        _check_packages()
        from core.installation import explain_missing_packages
        from flows.commands.app import app

        try:
            if handled:
                signal.signal(signal.SIGINT, interrupt)  # context managers of the command are closed
            with explain_missing_packages():
                app()
        finally:
            if handled:
                signal.signal(signal.SIGINT, _exit_at_once)
            sys.stdout.flush()
    except UserInterrupt:
        _exit_interrupted()
    except StillhouseError as error:
        from core.secrets import redact_text

        print("\n".join(filter(None, [f"error: {redact_text(str(error))}", error.hint])), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except Exception:
        if interrupted:  # C code that was importing raises its own error instead
            _exit_interrupted()
        raise


def _check_packages() -> None:
    """Raises UsageError if a package of another distribution, such as `agents` of openai-agents, hides ours."""
    from importlib.util import find_spec
    from pathlib import Path

    from core.errors import UsageError
    from core.project_files import PROJECT

    if __package__ != "flows":  # in a wheel, ours are under `stillhouse`
        return
    for name in PACKAGES:
        spec = find_spec(name)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        if folder != PROJECT / name:
            raise UsageError(
                f"`{name}` is {folder or 'not found'}, not {PROJECT / name}; install Stillhouse in its own environment"
            )


def _exit_interrupted() -> None:
    print("interrupted", file=sys.stderr)
    raise SystemExit(INTERRUPTED_EXIT_CODE) from None


def _exit_at_once(_number: int, _frame: object) -> None:
    """Exit immediately: nothing is open before the command starts or after it ends."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED_EXIT_CODE)
