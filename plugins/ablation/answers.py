"""The answers of an ablation's models: each student is trained, asked and deleted, and its answers are stored, so that nothing is
measured twice.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agents.checks.text.text_units import split_words
from agents.studies.general_panel import ask_general_panel
from agents.studies.held_out_evaluation import HeldOutResult, evaluate_held_out, evaluate_prompted, judge_by_check
from core.config.teachers import TeacherConfig
from core.shared_options import DEFAULT_GGUF_TYPE
from core.storage.atomic_files import read_record, write_text
from flows.data.student_files import configure_student_as_teacher
from flows.terminal.console import CommandSession
from plugins.ablation.results import AnsweredRequests
from plugins.ablation.task import AblationTask, ArmTraining


class Answers:
    """The answers of all models of an ablation, in files by the digest of what was asked of whom."""

    def __init__(self, task: AblationTask, session: CommandSession) -> None:
        self._task = task
        self._session = session

    def find(self, digest: str) -> AnsweredRequests | None:
        file = self._locate(digest)
        return read_record(file, AnsweredRequests) if file.is_file() else None

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
        budget = plan.recipe.budget.model_copy(update={"minutes": None})  # these are of production
        journal, elsewhere = task.folder / "spend.jsonl", task.manifest.costs.spent
        label = "prompted teacher" if name == "h" else "bare teacher"
        stop, progress = self._session.stop, self._show(label)
        if name == "h":
            asking = evaluate_prompted(
                plan,
                task.requests,
                stop,
                progress,
                cache=task.run.cache,
                budget=budget,
                journal=journal,
                elsewhere=elsewhere,
            )
        else:
            asking = evaluate_held_out(
                plan, plan.recipe.generator_teacher, task.requests, stop, progress, cache=task.run.cache, budget=budget,
                journal=journal, elsewhere=elsewhere,
            )  # fmt: skip
        self._store(digest, asyncio.run(self._judge(label, asyncio.run(asking), [])))

    def _show(self, label: str) -> Callable[[int], None]:
        return lambda done: self._session.show_progress(
            lambda: f"ablate: {label}: {done:,} of {len(self._task.requests):,} requests"
        )

    def measure_training(self, training: ArmTraining) -> None:
        """Train a student of the arm's rows and ask it. Its weights are deleted afterwards."""
        task, digest = self._task, self._task.digest_training(training)
        start_wanted = "i" in task.declared.arms and not self.find(task.digest_model("i"))
        if self.find(digest) and not start_wanted:
            return
        from students.training.student_training import train_student

        folder = task.folder / "students" / digest
        started = time.monotonic()
        train_student(
            training.drawn.rows, task.config, folder, seed=training.seed, held_out=task.validation or None,
            progress=self._session.print_unless_stopped, synthetic=True,
        )  # fmt: skip
        seconds = time.monotonic() - started
        if start_wanted:
            self._measure_start(folder)
        if not self.find(digest):
            asked = {
                "rows": len(training.drawn.rows),
                "teacher_tokens": training.drawn.tokens,
                "seconds": round(seconds, 1),
            }
            self._store(digest, self._ask_student(training.label, folder).model_copy(update=asked))
        self.remove_students()

    def remove_students(self) -> None:
        """Their answers are what is kept."""
        shutil.rmtree(self._task.folder / "students", ignore_errors=True)

    def _measure_start(self, student: Path) -> None:
        from students.comparison import write_untrained_student

        with _scratch_folder(student.with_name("start")) as start:
            if write_untrained_student(student, start):
                self._store(self._task.digest_model("i"), self._ask_student("i (start)", start))

    def _ask_student(self, label: str, folder: Path) -> AnsweredRequests:
        from students.gguf_export import export_gguf

        task, stop = self._task, self._session.stop
        weights = export_gguf(folder, DEFAULT_GGUF_TYPE).path
        model = configure_student_as_teacher(weights, task.plan.recipe.generator_teacher)
        results = asyncio.run(
            evaluate_held_out(task.plan, model, task.requests, stop, self._show(label), cache=task.run.cache)
        )
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
        self._session.print_unless_stopped(f"ablate: {label}: {sum(passed)} of {len(passed)} answers pass")
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
