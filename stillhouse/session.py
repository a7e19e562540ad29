"""How a library call runs: in its own thread and event loop, without signal handlers, with progress as a callback.

A notebook already has an event loop, and its kernel handles signals. Ctrl-C, or the kernel's interrupt, stops the call as it
stops the command: finished samples and answers are stored.
"""

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

WAIT_SECONDS = 0.2
"""How often the waiting thread looks for an interrupt."""
_one_call = threading.Lock()


class Progress(NamedTuple):
    """A message about long work."""

    message: str
    share: float | None
    """The share that is done, from 0 to 1; None where it is unknown."""


ProgressCallback = Callable[[Progress], None]


def run_call(work: Callable[[], T], progress: ProgressCallback | None) -> T:
    """The result of `work`. One call runs at a time in a process; others wait for it.

    Raises:
        KeyboardInterrupt: after an interrupt, once work in flight is stored.
        StillhouseError: as `work`.
    """
    from flows.terminal.console import SESSION

    def report(message: str, share: float | None) -> None:
        if progress:
            progress(Progress(message, share))

    with _one_call, ThreadPoolExecutor(1, "stillhouse") as thread, SESSION.report_to(report):
        future = thread.submit(work)
        try:
            while not wait([future], WAIT_SECONDS).done:
                pass
        except KeyboardInterrupt:
            SESSION.stop.set()
            wait([future])
            raise
        finally:
            SESSION.stop.clear()
        return future.result()


def format_settings(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as the `KEY=VALUE` of `--set`, with values in TOML.

    Raises:
        TypeError: for a value that TOML cannot express.
    """
    return [f"{key}={_format_toml(value)}" for key, value in (settings or {}).items()]


def _format_toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_format_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_format_toml, value)) + "]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    if hasattr(value, "__fspath__"):
        return json.dumps(str(value), ensure_ascii=False)
    raise TypeError(f"{value!r}: a setting is a text, a number, a truth value, a path, or a list or mapping of these")
