"""Work that is repeated in another thread while a block runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeat_in_background(seconds: float, work: Callable[[], bool]) -> Iterator[None]:
    """Call `work` in another thread every `seconds`, until the block ends or `work` returns False."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds) and work():
            pass

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
