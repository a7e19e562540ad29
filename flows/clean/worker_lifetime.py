"""How a process that filters rows starts and ends. Imports the standard library only: before it runs, Ctrl-C ends the process."""

import multiprocessing
import os
import signal
import threading


def setup_worker() -> None:
    """Ctrl-C reaches the whole process group: the command decides what is still finished. When the command is killed, its worker
    ends too: a worker that waits for the next batch would wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
