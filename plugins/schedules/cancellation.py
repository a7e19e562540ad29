"""Cancellation of a flow run on Prefect's page: the run ends like an interrupted one, with finished samples stored and the
state Cancelled. Knows no run.

Prefect's own signal handler raises an exception at any line: each task logs a crash, and the flow ends "in state Running". So
the handler is wrapped. Prefect confirms a cancellation only while its own handler is installed, compared by identity, so the
wrapper also replaces Prefect's reference to it.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled
from prefect.utilities import engine

from flows.terminal.console import UserInterrupt

CANCELLED_MESSAGE = "cancelled; finished samples are stored, and a retry resumes the run"
PATIENCE = 15.0
"""Seconds for a run to stop in order. A longer stage, such as a filter over many samples, is aborted: the end is recorded
before Prefect's worker kills the process 30 seconds after the signal.
"""


@contextmanager
def handle_cancellation(stop: threading.Event) -> Iterator[None]:
    """Around the body of a flow: a cancellation sets `stop`. Any other SIGTERM, a second SIGTERM, and a cancellation that the
    body has not obeyed after `PATIENCE` raise TerminationSignal, as Prefect's handler does.

    Raises:
        TerminationSignal: also instead of the body's UserInterrupt if the flow run is cancelled: Prefect then ends the process in
            order, and its supervisor sets the state.
    """
    if threading.current_thread() is not threading.main_thread() or not engine.is_prefect_sigterm_handler_installed():
        yield
        return
    original = engine._prefect_sigterm_handler
    repeat = threading.Timer(PATIENCE, os.kill, (os.getpid(), signal.SIGTERM))
    repeat.daemon = True

    def wrapper(number: int, *frame: object) -> None:
        if _is_being_cancelled() and not stop.is_set():
            stop.set()
            repeat.start()
        else:
            original(number, *frame)

    _install_handler(wrapper)
    try:
        yield
    except (UserInterrupt, TerminationSignal):
        context = FlowRunContext.get()
        if not _is_being_cancelled() or context is None or context.flow_run is None:
            raise
        context.flow_run.state = Cancelled(message=CANCELLED_MESSAGE)  # Prefect logs it as the last line
        raise TerminationSignal(signal.SIGTERM) from None
    finally:
        repeat.cancel()
        _install_handler(original)


def _is_being_cancelled() -> bool:
    """Whether the supervising process announced the signal as a cancellation."""
    from prefect._internal.control_listener import get_intent

    return get_intent() == "cancel"


def _install_handler(handler: Any) -> None:
    with engine._prefect_sigterm_bridge_lock:
        engine._prefect_sigterm_handler = handler
        signal.signal(signal.SIGTERM, handler)
