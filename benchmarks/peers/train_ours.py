"""`students.training.student_training.train_student`, as the command does it; the first conversations are held out as well."""

import sys
from pathlib import Path

from benchmarks.peers.train_work import HELD_OUT, Work, main
from core.config.students import StudentConfig
from core.sample import Message
from students.training.student_training import train_student


def train_and_time(work: Work) -> None:
    settings = {
        "start": work.start,
        "objective": work.objective,
        "epochs": 1,
        "batch_size": work.batch_size,
        "max_tokens": work.max_tokens,
        "learning_rate": work.learning_rate,
        **work.more,
    }
    settings["distillation"] = {"teacher": work.teacher, **work.more.get("distillation", {})}
    rows = [[Message(**message) for message in (*row["prompt"], *row["completion"])] for row in work.rows]
    told = lambda line: print(line, file=sys.stderr)  # noqa: E731, T201
    train_student(
        rows, StudentConfig.model_validate(settings), Path(work.out), seed=7, progress=told, held_out=rows[:HELD_OUT]
    )


main(train_and_time)
