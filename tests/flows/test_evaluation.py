"""A student beside its teacher: found, asked, measured, told, and shown in its run's report."""

import asyncio
import json
from pathlib import Path

import polars as pl
import pytest

from core.run import RunDir, open_run
from core.shares import Measure
from core.store import write_parquet
from core.student_config import StudentConfig
from flows.evaluation import Answer, Evaluation, Example, Row, TaskRow, evaluate, evaluation_card, task_of
from flows.recipes import load, sources
from flows.report import EVALUATION, write_report
from flows.session import Session
from students.train import distill
from tests.flows.test_cli import called
from tests.students.conftest import conversations, quiet, saved, tiny_llama, tiny_tokenizer

TEACHER = Row(
    role="teacher", model="local/smollm2-135m", passed=40, pass_rate=Measure(value=0.4, low=0.309, high=0.498),
    faults={"max_words": 35, "on_topic": 25}, nats_per_token=1.5, bits_per_byte=0.61, bytes=98_000_000,
    tokens_per_second=101.3, read_per_second=402.0, memory=150_000_000,
)  # fmt: skip
STUDENT = Row(
    role="student", model="/s/student-q8_0.gguf", passed=30, pass_rate=Measure(value=0.3, low=0.219, high=0.396),
    faults={"on_topic": 70}, nats_per_token=2.0, bits_per_byte=0.77, bytes=7_400_000, tokens_per_second=1502.0,
    read_per_second=9000.0, memory=None,
)  # fmt: skip
FOUND = Evaluation(
    student="/s", recipe="smoke", seed=7, type="q8_0", seeds=100, first_seed=60, held_out=5, rows=[TEACHER, STUDENT],
    retention=Measure(value=0.75, low=0.52, high=1.09), tasks=[
        TaskRow(task="ends", metric="acc", rows=1200, scores={"student": Measure(value=0.5, low=0.4, high=0.6)})
    ], notes=["Nothing on the untrained student."],
    examples=[Example(question="<b>?", answers={"student": Answer(text="<script>", fault="on_topic")})],
)  # fmt: skip


def test_the_card_tells_who_passed_how_much_and_what_it_takes() -> None:
    card = evaluation_card(FOUND)
    lines = card.splitlines()
    assert lines[1] == "  smoke: 100 held-out seeds, from number 60 on; one try each, no examples"
    assert lines[3].split() == "teacher 40 of 100, 40 % 31 % to 50 % 1.500 0.610 101 98.0 150".split()
    assert lines[4].split() == "student 30 of 100, 30 % 22 % to 40 % 2.000 0.770 1,502 7.4 -".split()
    assert "retention 0.75 (0.52 to 1.09) of the teacher's pass rate" in card
    assert "teacher not passed: max_words 35   on_topic 25" in card
    assert card.endswith("/s/evaluation.json")
    assert max(map(len, lines)) <= 100


def test_the_runs_report_shows_it_and_no_answer(tmp_path: Path) -> None:
    plan = load("smoke")
    run = open_run(tmp_path, plan.recipe, sources(plan), folder=plan.folder, resume=False)
    manifest = run.read_manifest()
    write_report(run, manifest, plan.recipe, [], [])
    assert "Beside its teacher" not in run.report_file.read_text()
    run.student.mkdir()
    (run.student / EVALUATION).write_text(FOUND.model_dump_json())
    record = {"start": "random", "parameters": 1, "train_samples": 9, "held_out_samples": 5, "steps": 3}
    manifest = type(manifest).model_validate(
        {**manifest.model_dump(), "student": {**record, "loss_before": 3.0, "loss_after": 2.0, "seconds": 1.0}}
    )
    write_report(run, manifest, plan.recipe, [], [])
    page = run.report_file.read_text()
    assert "Beside its teacher" in page
    assert "<td>30 % <small>22 % to 40 %</small></td>" in page
    assert "Retention 0.75 (0.52 to 1.09)" in page
    assert "<td>0.500 <small>0.400 to 0.600</small></td>" in page
    saved = json.loads(run.report_file.with_suffix(".json").read_text())["evaluation"]
    assert saved == json.loads(FOUND.model_dump_json(exclude={"examples"}))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["export", "missing"], "error: missing: there is no student: neither it nor missing/student has a config.json"),
        (["evaluate", "missing"], "error: missing: there is no student"),
        (["evaluate", "{folder}"], "is not the student of a run, so name the recipe to hold it to: --recipe RECIPE"),
        (["evaluate", "{folder}", "--recipe", "poems"], "error: poems: no recipe of this name"),
        (["evaluate", "{folder}", "--recipe", "smoke"], "is a 'gpt2'; only a 'llama' can be exported"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    code, out, err = called(capsys, *(word.format(folder=folder) for word in words), *(["-q"] * (words[0] != "export")))
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """One with a tiny student, and with what it did not train on."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, folder / "start")
    config = StudentConfig(start=str(start), epochs=10, learning_rate=3e-3, batch_size=4, max_tokens=64, vocabulary=300)
    plan = load("smoke", ["samples=40"])
    run = open_run(folder, plan.recipe, sources(plan), folder=plan.folder, resume=False)
    train, held_out = conversations()[:9], conversations()[9:]
    distill(train, config, run.student, seed=7, progress=quiet, held_out=held_out)
    rows = [[message.model_dump() for message in talk] for talk in held_out]
    write_parquet(run.dataset / "validation.parquet", pl.DataFrame({"messages": rows}))
    return run


@pytest.mark.slow
def test_a_runs_student_is_asked_beside_its_teacher_and_its_start(run: RunDir, tmp_path: Path) -> None:
    session = Session()
    session.quiet = True
    (tmp_path / "rows.jsonl").write_text('{"text": "I like", "ends": [" bees", " owls"]}\n' * 3)
    (tmp_path / "ends.yaml").write_text(
        f"task: ends\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_choice: '{{ends}}'\n"
        "doc_to_target: 0\nmetric_list: [{metric: acc, higher_is_better: true}]\n"
    )
    task = task_of(run.path, None, 12, "q8_0", [str(tmp_path / "ends.yaml")], 2)
    found = asyncio.run(evaluate(task, session))
    assert Evaluation.model_validate_json((run.student / EVALUATION).read_text()) == found
    assert (found.seeds, found.first_seed, found.held_out, found.notes) == (12, 40, 3, [])
    teacher, student, start = found.rows
    assert [row.role for row in found.rows] == ["teacher", "student", "start"]
    for row in found.rows:
        assert row.passed is not None
        assert row.passed + sum(row.faults.values()) == 12
    assert teacher.passed
    assert found.retention
    assert found.retention.value == (student.passed or 0) / teacher.passed
    assert (teacher.nats_per_token, teacher.bytes, teacher.tokens_per_second) == (None, None, None), "it is a script"
    assert student.nats_per_token
    assert start.nats_per_token
    assert student.nats_per_token < start.nats_per_token - 1
    assert student.bytes == start.bytes == (run.student / "student-q8_0.gguf").stat().st_size
    assert student.tokens_per_second
    assert student.memory
    assert 1e6 < student.memory < 1e9
    [ends] = found.tasks
    assert (ends.task, ends.metric, ends.rows) == ("ends", "acc", 2)
    assert ends.scores.keys() == {"student", "start"}, "a scripted teacher has no weights"
    assert "ends, acc, 2 rows: student" in evaluation_card(found)
    assert len(found.examples) == 10
    assert found.examples[0].answers.keys() == {"teacher", "student", "start"}
