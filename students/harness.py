"""Tasks of lm-evaluation-harness, public ones or files of one's own, asked of a model's folder. Knows nothing of whose it is."""

import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import UsageError
from students.processes import device

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

BATCH = 8
RESAMPLES = 1000
"""For the standard errors of metrics that have no formula of one."""


class Score(NamedTuple):
    """What a model reached in a task."""

    task: str
    metric: str
    """As the harness calls it, with its filter where there is one (`exact_match, strict-match`)."""
    value: float
    error: float | None
    """Standard error, where the harness tells one."""
    rows: int


class Harness:
    """Tasks by name, or by the path of a YAML file that describes one."""

    def __init__(self, tasks: Sequence[str]) -> None:
        """Raises UsageError where the harness is not installed, or there is no such task."""
        if find_spec("lm_eval") is None:
            raise UsageError("--tasks: lm_eval is not installed; install the extra `harness`")
        files = [Path(one) for one in tasks if one.endswith((".yaml", ".yml"))]
        self.names = [_name(Path(one)) if Path(one) in files else one for one in tasks]
        self._manager = _manager(files, defaults=len(files) < len(tasks))
        if unknown := sorted(set(self.names) - set(self._manager.all_tasks)):
            raise UsageError(
                f"--tasks: {', '.join(unknown)}: lm_eval knows no such task; `lm_eval ls tasks` lists them, and a file is "
                "named with .yaml"
            )

    def scores(self, folder: Path, rows: int | None) -> list[Score]:
        """Of the model in `folder`, on all rows of each task or the first `rows`. What the harness prints is not heard.

        Raises:
            UsageError: if a task's data cannot be had.
        """
        import lm_eval

        given = {"pretrained": str(folder), "dtype": "float32"}
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            try:
                found = lm_eval.simple_evaluate(
                    model="hf", model_args=given, tasks=self.names, task_manager=self._manager, device=str(device()),
                    batch_size=BATCH, limit=rows, log_samples=False, bootstrap_iters=RESAMPLES,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                reason = str(error).split("\n", 1)[0]
                raise UsageError(f"--tasks: {', '.join(self.names)} cannot be asked: {reason}") from None
        return list(_scores(dict(found or {})))


def _manager(files: Sequence[Path], *, defaults: bool) -> "TaskManager":
    from lm_eval.tasks import TaskManager

    with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        return TaskManager(include_path=[str(file.parent) for file in files] or None, include_defaults=defaults)


def _name(file: Path) -> str:
    """Of the task that a file describes."""
    if not file.is_file():
        raise UsageError(f"--tasks: {file}: there is no such file")
    found = re.search(r"^task:\s*(\S+)\s*$", file.read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise UsageError(f"--tasks: {file}: says no `task: NAME`, so it describes no task of lm_eval")
    return found[1].strip("'\"")


def _scores(found: dict[str, Any]) -> Iterator[Score]:
    for task, values in found.get("results", {}).items():
        rows = found.get("n-samples", {}).get(task, {}).get("effective", 0)
        for key, value in values.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{filtered}")
            name = metric if filtered == "none" else f"{metric}, {filtered}"
            yield Score(task, name, float(value), error if isinstance(error, float) else None, rows)
