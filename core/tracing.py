"""The blocks and calls of a run that a plugin's tracer (a part of kind `tracer`) records. Without one, nothing is recorded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from core.plugins import import_part, iterate_parts

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]


class RunTrace:
    """What is recorded of one run: here nothing. Tracers derive from it."""

    def set_attributes(self, attributes: Attributes) -> None:
        """Add facts about the run."""

    def hold_stage(self, name: str) -> AbstractContextManager[object]:
        """A block that is a stage of the run."""
        return nullcontext()

    def hold_sample(self, name: str, index: int) -> AbstractContextManager[Callable[[Attributes], object]]:
        """A block that makes the sample `name`, whose calls have this index; yields a function that adds facts about it."""
        return nullcontext(lambda _attributes: None)

    def trace_call(self, config: Any, key: Any) -> Callable[..., Any] | None:
        """A function that is called with a teacher in place of its `reply`, for a call of the teacher `config` with the call key
        `key`. None to call it directly.
        """
        return None


_TRACE: ContextVar[RunTrace | None] = ContextVar("trace", default=None)


def find_trace() -> RunTrace:
    """The trace of the present run."""
    return _TRACE.get() or RunTrace()


@contextmanager
def open_trace(name: str, run: str, attributes: Attributes, report: Callable[[str], object]) -> Iterator[RunTrace]:
    """Trace what the block does, unless it is part of a traced block.

    Args:
        name: of the outermost span.
        run: the run's name, in each span.
        attributes: of the outermost span.
        report: is called with a sentence if spans are not or cannot be sent.
    """
    found = None if _TRACE.get() else next(iterate_parts("tracer"), None)
    with import_part(*found)(name, run, attributes, report) if found else nullcontext() as trace:
        token = _TRACE.set(trace or _TRACE.get())
        try:
            yield trace or RunTrace()
        finally:
            _TRACE.reset(token)
