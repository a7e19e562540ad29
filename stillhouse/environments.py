"""What a package of `stillhouse export-env` needs: its tasks, and the recipe's checks as the reward of an answer.

scorer = load_answer_scorer(folder)
score = await scorer.score(task, "an answer")     # score.passed, score.check, score.evidence
"""

import json
from pathlib import Path
from typing import Literal

from agents.studies.answer_scoring import AnswerScore, AnswerScorer, AnswerTask, ScoringChecks

__all__ = ["AnswerScore", "AnswerScorer", "AnswerTask", "load_answer_scorer", "read_answer_tasks"]


def load_answer_scorer(folder: Path) -> AnswerScorer:
    """The checks of an exported package, by the folder of its module. Own checks of the recipe in it are executed.

    Raises:
        RecipeError: if a check lacks a package or a file here.
    """
    return AnswerScorer(ScoringChecks.model_validate_json((folder / "checks.json").read_text(encoding="utf-8")), folder)


def read_answer_tasks(folder: Path, split: Literal["train", "eval"]) -> list[AnswerTask]:
    """The tasks of one split of an exported package."""
    with (folder / "tasks.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [AnswerTask.model_validate(row["task"]) for row in rows if row["split"] == split]
