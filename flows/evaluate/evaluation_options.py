"""The options of `stillhouse evaluate`, and what an evaluation is."""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from core.errors import UsageError
from core.project_files import RUNS_FOLDER
from core.shared_options import DEFAULT_GGUF_TYPE, DEFAULT_PANEL
from flows.data.run_storage import open_run_storage
from flows.terminal.console import CommandSession

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


class EvaluationOptions(NamedTuple):
    """The options of `stillhouse evaluate`."""

    number: int = 100
    """Of held-out seeds, or of rows."""
    kind: str = DEFAULT_GGUF_TYPE
    recipe: str | None = None
    """None: that of the student's run."""
    tasks: str = ""
    """Names of lm-evaluation-harness, separated by commas."""
    task_rows: int | None = None
    """Of each task; None is all."""
    data: Path | None = None
    """Rows in place of the recipe's seeds."""
    check: str | None = None
    settings: Sequence[str] = ()
    """Options of the check, as `key=value`."""
    runs_dir: str = RUNS_FOLDER
    panel: int = DEFAULT_PANEL
    """Tasks of the general panel, for an evaluation by a recipe; 0 is no panel."""

    @property
    def runs(self) -> Path:
        return open_run_storage(self.runs_dir).runs

    def load_plan(self) -> "RunPlan | None":
        """The plan of the named recipe. Raises RecipeError, UsageError."""
        from flows.recipes.recipe_catalog import load_recipe_plan

        return load_recipe_plan(self.recipe, []) if self.recipe else None

    def refuse(self, names: Sequence[str], why: str) -> None:
        """Raises UsageError if one of these options is given."""
        if given := next((name for name in names if getattr(self, name)), None):
            raise UsageError(f"--{given.replace('_', '-').replace('settings', 'set')}: {why}")

    def validate(self) -> None:
        """Raises UsageError where options exclude each other."""
        if self.data is None:
            self.refuse(("check", "settings"), "is for rows of --data; a recipe has its own checks")
        else:
            self.refuse(("recipe", "tasks", "task_rows"), "cannot be combined with --data; leave one of them out")


class Evaluation(NamedTuple):
    """How students of a kind are evaluated. A plugin has one as a part, under the name of the step that makes its students."""

    measure: Callable[[Path, EvaluationOptions, CommandSession], Coroutine[Any, Any, BaseModel]]
    """Evaluates the student in a folder, and writes the result there."""
    format: Callable[[Any], str]
    """The result as the command prints it."""
