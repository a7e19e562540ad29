"""What every trainer is given and gives back: a start, rows of one question and one answer, a batch size and an objective in; the
moment of each step of the optimizer out. Imported by the drivers, each in its own environment: needs torch.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch.optim.optimizer import register_optimizer_step_post_hook

HELD_OUT = 8
"""The first rows, of which the loss is measured before the first step too."""


class Work(NamedTuple):
    start: str
    """A folder that transformers loads."""
    teacher: str
    """Another, for objectives that need one."""
    objective: str
    """`sft`, or `forward_kl` with the teacher beside."""
    rows: list[dict[str, list[dict[str, str]]]]
    """`prompt` and `completion`, messages each."""
    batch_size: int
    max_tokens: int
    learning_rate: float
    out: str
    more: dict[str, Any]
    """Settings of our own trainer beside these."""


def main(train: Callable[[Work], None]) -> None:
    """Train as the file says that the command line names; write the seconds since the epoch and the CPU seconds, step by step, to
    the second one. As root, raise the priority.
    """
    source, told = map(Path, sys.argv[1:])
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("-10")
    moments: list[tuple[float, float]] = []
    register_optimizer_step_post_hook(lambda *_: moments.append((time.time(), time.process_time())))
    train(Work(**json.loads(source.read_text(encoding="utf-8"))))
    told.write_text(json.dumps(moments), encoding="utf-8")
