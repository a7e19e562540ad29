"""`stillhouse serve` for a decision student: its options, its address, its end."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from core.config.teachers import TeacherConfig
from core.errors import UsageError
from flows.terminal.console import SESSION, UserInterrupt
from plugins.serving.cascade.serving_setup import NO_TEACHER, ServingOptions, build_option_teacher
from plugins.serving.decision_students.decision_student import DecisionStudent
from plugins.serving.decisions.decision_server import run_decision_server
from plugins.serving.decisions.generative_encoder import open_decision_student


def choose_decision_teacher(options: ServingOptions) -> TeacherConfig | None:
    """The teacher for what the guarantee does not cover; None without an option, since a student's file starts nothing.

    Raises:
        UsageError: for options of generative students, or a key that is not set.
    """
    given = {"--threshold": options.threshold, "--share": options.share, "--signal": options.signal}
    if wrong := next((name for name, value in given.items() if value is not None), None):
        raise UsageError(f"{wrong}: a decision student has its certified threshold; leave the option out")
    if options.draft:
        raise UsageError("--draft: a decision student writes no tokens; leave the option out")
    model = options.teacher or (options.recipe.model if options.recipe else None)
    if model is None or model == NO_TEACHER:
        return None
    return build_option_teacher(model, options)


def serve_decision_student(
    folder: Path, options: ServingOptions, audit: float, host: str, port: int, names: Sequence[str], *, as_json: bool
) -> None:
    """Serve until the session's stop signal.

    Raises:
        UsageError: if the student or an option cannot be used.
    """
    teacher = choose_decision_teacher(options)
    with open_decision_student(folder) as student:
        _serve_student(student, folder, teacher, audit, host, port, names, as_json=as_json)


def _serve_student(
    student: DecisionStudent, folder: Path, teacher: TeacherConfig | None, audit: float, host: str, port: int,
    names: Sequence[str], *, as_json: bool,
) -> None:  # fmt: skip
    try:
        student.decide(["."])  # loads the encoder
    except ValueError as fault:
        raise UsageError(
            f"{folder}: its heads do not fit its encoder {student.encoder} ({fault}); make it again with `stillhouse decisions`"
        ) from None
    rest = f"{teacher.model} decides the rest" if teacher else "no teacher: uncertain decisions are marked"
    questions = ", ".join(question.name for question in student.questions)
    SESSION.print_message(f"serve: a decision student ({student.encoder}) for {questions}; {rest}")

    def print_address(url: str) -> None:
        facts = {"state": "serving", "url": url, "student": str(folder), "teacher": teacher and teacher.model}
        text = json.dumps(facts, ensure_ascii=False) if as_json else f"serving {folder} at {url}"
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    with SESSION.handle_interrupts():
        try:
            asyncio.run(run_decision_server(student, teacher, audit, host, port, names, SESSION, print_address))
        except KeyboardInterrupt:
            raise UserInterrupt from None
