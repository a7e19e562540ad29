"""Tasks of lm-evaluation-harness, public or from the user's files, run on a model's folder. Knows no student."""

import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import UsageError
from core.installation import format_install_command
from students.distributed import select_device

HARNESS_BATCH = 8
RESAMPLES = 1000
"""For the standard errors of metrics without a formula."""


class TaskScore(NamedTuple):
    """A model's score in a task."""

    task: str
    metric: str
    """The harness's name, with its filter if there is one (`exact_match, strict-match`)."""
    value: float
    error: float | None
    """Standard error, if the harness reports one."""
    rows: int


class EvaluationHarness:
    """Tasks by name, or by the path of a task's YAML file."""

    def __init__(self, tasks: Sequence[str]) -> None:
        """Raises UsageError where the harness is not installed, or a task does not exist."""
        if find_spec("lm_eval") is None:
            raise UsageError(
                f"--tasks: needs the extra `harness` (lm_eval is missing): run {format_install_command('harness')}"
            )
        self.names: list[str] = []
        files: list[Path] = []
        for task in tasks:
            if not task.endswith((".yaml", ".yml")):
                self.names.append(task)
                continue
            file = Path(task)
            if not file.is_file():
                raise UsageError(f"--tasks: {file}: there is no such file")
            name = re.search(r"^task:\s*(\S+)\s*$", file.read_text(encoding="utf-8"), re.MULTILINE)
            if not name:
                raise UsageError(f"--tasks: {file}: has no line `task: NAME`, so it describes no task of lm_eval")
            files.append(file)
            self.names.append(name[1].strip("'\""))

        from lm_eval.tasks import TaskManager

        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            self._manager = TaskManager(
                include_path=[str(file.parent) for file in files] or None, include_defaults=len(files) < len(tasks)
            )
        if unknown := sorted(set(self.names) - set(self._manager.all_tasks)):
            raise UsageError(
                f"--tasks: {', '.join(unknown)}: lm_eval knows no such task; `lm_eval ls tasks` lists its tasks, and a file's "
                "name ends in .yaml"
            )

    def score_model(self, folder: Path, rows: int | None) -> list[TaskScore]:
        """Score the model in `folder` on all rows of each task, or the first `rows`. The harness's output is discarded.

        Raises:
            UsageError: if a task's data cannot be loaded.
        """
        import lm_eval

        model_options = {"pretrained": str(folder), "dtype": "float32"}
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            try:
                results = lm_eval.simple_evaluate(
                    model="hf", model_args=model_options, tasks=self.names, task_manager=self._manager,
                    device=str(select_device()),
                    batch_size=HARNESS_BATCH, limit=rows, log_samples=False, bootstrap_iters=RESAMPLES,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                reason = str(error).split("\n", 1)[0]
                raise UsageError(f"--tasks: {', '.join(self.names)} cannot be run: {reason}") from None

        found: dict[str, Any] = dict(results or {})
        scores = []
        for task, values in found.get("results", {}).items():
            used = found.get("n-samples", {}).get(task, {}).get("effective", 0)
            for key, value in values.items():
                metric, comma, filtered = key.partition(",")
                if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                    name = metric if filtered == "none" else f"{metric}, {filtered}"
                    given = values.get(f"{metric}_stderr,{filtered}")
                    deviation = given if isinstance(given, float) else None
                    scores.append(TaskScore(task, name, float(value), deviation, used))
        return scores
