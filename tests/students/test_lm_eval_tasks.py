"""Tasks of lm-evaluation-harness, described by a file, asked of a model that was taught the answers and of one that was not."""

import json
from pathlib import Path

import pytest

from core.config.students import StudentConfig
from core.sample import Message
from students.chat_encoding import Conversation
from students.comparison import EvaluationHarness
from students.training.student_training import train_student
from tests.students.conftest import TOPICS, quiet

pytestmark = pytest.mark.slow

TASK = """task: likes
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "I like"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list:
  - metric: acc
    higher_is_better: true
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Which of two topics somebody likes: a topic of even place, not one of odd place."""
    pairs = [{"choices": [f" {TOPICS[place]}", f" {TOPICS[place + 1]}"]} for place in range(0, len(TOPICS), 2)]
    (tmp_path / "likes.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    file = tmp_path / "likes.yaml"
    file.write_text(TASK.format(data=tmp_path / "likes.jsonl"))
    return file


def test_a_student_passes_a_task_that_it_learned(task: Path, config: StudentConfig, tmp_path: Path) -> None:
    def liking(place: int) -> list[Conversation]:
        asked = Message(role="user", content="What do you like?")
        return [[asked, Message(role="assistant", content=f"I like {topic}.")] for topic in TOPICS[place::2]] * 4

    harness, found = EvaluationHarness([str(task)]), {}
    for place in (0, 1):
        out = tmp_path / f"student {place}"
        train_student(liking(place), config, out, seed=7, progress=quiet)
        [found[place]] = harness.score_model(out, None)
    assert (found[0].task, found[0].metric, found[0].rows) == ("likes", "acc", len(TOPICS) // 2)
    assert found[0].value > 0.8
    assert found[1].value < 0.2
    [few] = harness.score_model(tmp_path / "student 0", 2)
    assert few.rows == 2
    assert few.error is not None
