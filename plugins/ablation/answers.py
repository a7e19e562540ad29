"""The answers of an ablation's models: each student is trained, asked and deleted, and its answers are stored, so that nothing is
measured twice.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from agents.checks.text.text_units import split_words
from agents.studies.general_panel import ask_general_panel
from agents.studies.held_out_evaluation import HeldOutResult, evaluate_held_out, evaluate_prompted, judge_by_check
from core.config.teachers import TeacherConfig
from core.errors import StoreError, UsageError
from core.shared_options import DEFAULT_GGUF_TYPE
from core.storage.atomic_files import read_record, write_text
from flows.data.student_files import configure_student_as_teacher
from flows.terminal.console import CommandSession
from plugins.ablation.results import AnsweredRequests
from plugins.ablation.task import AblationTask, ArmTraining


class Answers:
    """The answers of all models of an ablation, in files by the digest of what was asked of whom."""

    def __init__(self, task: AblationTask, session: CommandSession, command: str = "ablate") -> None:
        """`command` names its lines of progress."""
        self._task = task
        self._session = session
        self._command = command

    def find(self, digest: str) -> AnsweredRequests | None:
        """The answers that were stored. None if there are none, or the file is damaged: they are measured again."""
        file = self._locate(digest)
        if not file.is_file():
            return None
        try:
            answered = read_record(file, AnsweredRequests)
        except StoreError as error:
            self._session.print_once(f"{self._command}: {error}; these answers are measured again")
            return None
        if not self._fits(answered):
            self._session.print_once(
                f"{self._command}: {file}: has other requests or checks; these answers are measured again"
            )
            return None
        return answered

    def _fits(self, answered: AnsweredRequests) -> bool:
        task = self._task
        judged = (answered.passed, *answered.by_check.values())
        return (
            {len(answered.words), *map(len, judged)} == {len(task.requests)}
            and answered.by_check.keys() == {bound.check.name for bound in (*task.checks, *task.held_out)}
            and len(answered.panel) in (0, task.declared.panel)
        )

    @property
    def _students(self) -> Path:
        """Hidden, so that an object store gets no weights."""
        return self._task.folder / ".students"

    def _locate(self, digest: str) -> Path:
        return self._task.folder / "answers" / f"{digest}.json"

    def _store(self, digest: str, answered: AnsweredRequests) -> None:
        self._locate(digest).parent.mkdir(parents=True, exist_ok=True)
        write_text(self._locate(digest), answered.model_dump_json() + "\n")

    def measure_model(self, name: str) -> None:
        """Ask the teacher, as a run prompts it (`h`) or as a student is asked (`BARE_TEACHER`)."""
        digest = self._task.digest_model(name)
        if self.find(digest):
            return
        task, plan = self._task, self._task.plan
        label = "prompted teacher" if name == "h" else "bare teacher"
        bare = partial(evaluate_held_out, plan, plan.recipe.generator_teacher)
        ask = partial(evaluate_prompted, plan) if name == "h" else bare
        asking = ask(task.requests, self._session.stop, self._show(label), cache=task.run.cache, **self._charge())
        self._store(digest, asyncio.run(self._judge(label, asyncio.run(asking), [])))

    def _charge(self) -> dict[str, Any]:
        """What the teacher is paid counts against the rest of the run's budget, but for its minutes of production."""
        return {
            "budget": self._task.plan.recipe.budget.model_copy(update={"minutes": None}),
            "journal": self._task.folder / "spend.jsonl",
            "elsewhere": self._task.manifest.costs.spent,
        }

    def _show(self, label: str) -> Callable[[int], None]:
        return lambda done: self._session.show_progress(
            lambda: f"{self._command}: {label}: {done:,} of {len(self._task.requests):,} requests"
        )

    def measure_training(self, training: ArmTraining) -> None:
        """Train a student of the arm's rows and ask it. Its weights are deleted afterwards."""
        task, digest = self._task, self._task.digest_training(training)
        start_wanted = "i" in task.declared.arms and not self.find(task.digest_model("i"))
        if self.find(digest) and not start_wanted:
            return
        from students.training.student_training import train_student

        folder = self._students / digest
        record = train_student(
            training.drawn.rows, task.configure(training.letter), folder, seed=training.seed, held_out=task.validation or None,
            rejected=training.drawn.rejected, judged=training.drawn.judged,
            progress=self._session.print_unless_stopped, synthetic=True,
        )  # fmt: skip
        if start_wanted:
            self._measure_start(folder)
        if not self.find(digest):
            answered = self._ask_student(training.label, folder)
            trained = {"seconds": record.seconds, "held_out_loss": record.loss_after}
            self._store(digest, answered.model_copy(update=trained))
        self.remove_students()

    def remove_students(self) -> None:
        """Their answers are what is kept."""
        shutil.rmtree(self._students, ignore_errors=True)

    def _measure_start(self, student: Path) -> None:
        from students.comparison import write_untrained_student

        with _scratch_folder(student.with_name("start")) as start:
            if not write_untrained_student(student, start):
                raise UsageError("the student's start is no longer there; leave arm i out with --arms")
            self._store(self._task.digest_model("i"), self._ask_student("i (start)", start))

    def _ask_student(self, label: str, folder: Path) -> AnsweredRequests:
        from students.gguf_export import export_gguf

        task, stop = self._task, self._session.stop
        weights = export_gguf(folder, DEFAULT_GGUF_TYPE).path
        model = configure_student_as_teacher(weights, task.plan.recipe.generator_teacher)
        charge = self._charge() if task.plan.asking_checks else {}
        asking = evaluate_held_out(
            task.plan, model, task.requests, stop, self._show(label), cache=task.run.cache, **charge
        )
        results = asyncio.run(asking)
        return asyncio.run(self._judge(label, results, self._ask_panel(model)))

    def _ask_panel(self, model: TeacherConfig) -> list[bool]:
        panel = self._task.panel
        if panel is None:
            return []
        asked = asyncio.run(
            ask_general_panel(panel, model, self._session.stop, lambda _done: None, cache=self._task.run.cache)
        )
        return [one.fault is None for one in asked.judged]

    async def _judge(self, label: str, results: Sequence[HeldOutResult], panel: list[bool]) -> AnsweredRequests:
        task = self._task
        passed = [one.fault is None for one in results]
        by_check = await judge_by_check((*task.checks, *task.held_out), task.requests, results)
        self._session.print_unless_stopped(f"{self._command}: {label}: {sum(passed)} of {len(passed)} answers pass")
        return AnsweredRequests(
            passed=passed, by_check=by_check, panel=panel, words=[len(split_words(one.answer)) for one in results]
        )


@contextmanager
def _scratch_folder(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
