"""The labels of a run's kept rows with their votes, as the run's page shows them. Knows no teacher."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from core.runs.run_dir import RunDir
from core.storage.sample_files import read_sample_columns
from plugins.serving.decisions.questions import DecisionQuestion

MOST_ANSWERS = 12
"""Answers that are shown of a question without classes."""


class DisputedRow(NamedTuple):
    text: str
    drafted: str
    """The answer that was drawn for the text, or that the generator gave."""
    label: str
    votes: Mapping[str, int]


class QuestionLabels(NamedTuple):
    """The labels of the kept rows for one question."""

    name: str
    rows: int
    counts: Sequence[tuple[str, int]]
    """Answers with their rows, the most frequent first; all classes of a question with a single class."""
    disputed: Sequence[DisputedRow]
    """Rows whose votes differ, those whose label is not the drafted answer first."""

    @property
    def denied(self) -> int:
        """Rows whose label is not the drafted answer."""
        return sum(row.label != row.drafted for row in self.disputed)


def summarize_labels(run: RunDir, questions: Sequence[DecisionQuestion]) -> list[QuestionLabels]:
    """One for each question; empty without kept rows."""
    files = [run.kept_file(shard) for shard in run.shards() if run.kept_file(shard).is_file()]
    rows = [json.loads(fields) for file in files for fields in read_sample_columns(file, ("fields",))["fields"]]
    return [_summarize_question(one, rows) for one in questions] if rows else []


def _summarize_question(question: DecisionQuestion, rows: Sequence[Mapping[str, Any]]) -> QuestionLabels:
    counts = Counter(dict.fromkeys(question.classes if question.has_single_class else (), 0))
    disputed = []
    for fields in rows:
        drafted, label = (question.to_class(fields[key][question.name]) for key in ("drafted", "answers"))
        counts[label] += 1
        votes = {vote["answer"]: vote["votes"] for vote in fields["label_votes"] if vote["question"] == question.name}
        if len(votes) > 1 or label != drafted:
            disputed.append(DisputedRow(fields["text"], drafted, label, votes))
    disputed.sort(key=lambda row: row.label == row.drafted)
    shown = counts.most_common(None if question.has_single_class else MOST_ANSWERS)
    return QuestionLabels(question.name, len(rows), shown, disputed)
