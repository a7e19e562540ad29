"""A student compared with its teacher: found, evaluated, printed, and shown in its run's report."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agents.studies.general_panel import build_general_panel
from core.config.recipe import BudgetConfig
from core.config.students import StudentConfig
from core.intervals import IntervalEstimate
from core.runs.run_dir import RunDir, open_run
from core.runs.student_records import GeneralPanelRecord, PairedComparison
from core.sample import Spending, conversation_digest
from core.storage.atomic_files import write_parquet
from flows.data.student_files import STUDENT_EVALUATION_FILE, configure_student_as_teacher
from flows.evaluate.dataset_evaluation import DatasetEvaluation
from flows.evaluate.evaluation_options import EvaluationOptions
from flows.evaluate.panel_evaluation import PanelModels, evaluate_general_panel
from flows.evaluate.student_evaluation import evaluate_student, prepare_student_evaluation
from flows.evaluate.student_results import (
    AnswerCost,
    EvaluatedAnswer,
    EvaluationExample,
    HarnessTaskResult,
    ModelResult,
    StudentEvaluation,
    format_student_evaluation,
)
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.report.run_report import write_run_report
from flows.terminal.console import CommandSession
from students.comparison import measure_answer_divergence, write_embedded_teacher
from students.gguf_export import export_gguf, read_student
from students.training.student_training import train_student
from tests.flows.commands.test_commands import called
from tests.flows.terminal.test_closing_card import PANEL
from tests.students.conftest import conversations, one_thread, quiet, saved, tiny_llama, tiny_qwen3, tiny_tokenizer

TEACHER = ModelResult(
    role="teacher", model="local/smollm2-135m", passed=40, pass_rate=IntervalEstimate(value=0.4, low=0.309, high=0.498),
    faults={"max_words": 35, "on_topic": 25}, nats_per_token=1.5, bits_per_byte=0.61, bytes=98_000_000,
)  # fmt: skip
STUDENT = ModelResult(
    role="student", model="/s/student-q8_0.gguf", passed=30, pass_rate=IntervalEstimate(value=0.3, low=0.219, high=0.396),
    faults={"on_topic": 70}, nats_per_token=2.0, bits_per_byte=0.77, bytes=7_400_000,
)  # fmt: skip
FOUND = StudentEvaluation(
    student="/s", recipe="smoke", seed=7, type="q8_0", seeds=100, first_seed=60, held_out=5, rows=[TEACHER, STUDENT],
    retention=IntervalEstimate(value=0.75, low=0.52, high=1.09), tasks=[
        HarnessTaskResult(
            task="ends", metric="acc", rows=1200, scores={"student": IntervalEstimate(value=0.5, low=0.4, high=0.6)}
        )
    ], notes=["Nothing on the untrained student."],
    comparisons=[
        PairedComparison(
            role="teacher", both=25, student_only=5, other_only=15, neither=55,
            difference=IntervalEstimate(value=-0.1, low=-0.19, high=-0.01),
        )
    ],
    examples=[EvaluationExample(question="<b>?", answers={"student": EvaluatedAnswer(text="<script>", fault="on_topic")})],
)  # fmt: skip


def test_the_printed_evaluation_has_pass_rates_losses_and_sizes() -> None:
    card = format_student_evaluation(FOUND)
    lines = card.splitlines()
    assert lines[1] == "  smoke: 100 held-out seeds, from number 60; one attempt each; prompted: with the run's prompt"
    assert lines[3].split() == "teacher 40 of 100, 40 % 31 % to 50 % 1.500 0.610 98.0".split()
    assert lines[4].split() == "student 30 of 100, 30 % 22 % to 40 % 2.000 0.770 7.4".split()
    assert "retention 0.75 (0.52 to 1.09) of the teacher's pass rate" in card
    assert "  student minus teacher: -10 points (-19 to -1), worse" in lines
    assert "teacher not passed: max_words 35   on_topic 25" in card
    assert card.endswith("/s/evaluation.json")
    assert max(map(len, lines)) <= 100


def test_the_runs_page_shows_the_evaluation_with_answers_and_its_json_without(tmp_path: Path) -> None:
    plan = load_recipe_plan("smoke")
    run = open_run(tmp_path, plan.recipe, plan.sources, folder=plan.folder, resume=False)
    manifest = run.read_manifest()
    write_run_report(run, manifest, plan.recipe, [], [])
    assert "Compared with its teacher" not in run.report_file.read_text()
    run.student.mkdir()
    (run.student / STUDENT_EVALUATION_FILE).write_text(FOUND.model_dump_json())
    record = {"start": "random", "parameters": 1, "train_samples": 9, "held_out_samples": 5, "steps": 3}
    manifest = type(manifest).model_validate(
        {**manifest.model_dump(), "student": {**record, "loss_before": 3.0, "loss_after": 2.0, "seconds": 1.0}}
    )
    write_run_report(run, manifest, plan.recipe, [], [])
    page = run.report_file.read_text()
    assert "Compared with its teacher" in page
    assert "<td>30 % <small>22 % to 40 %</small></td>" in page
    assert "Retention 0.75 (0.52 to 1.09)" in page
    assert "<td>-10 <small>-19 to -1</small></td>" in page
    assert "&lt;script&gt; <small>on_topic</small>" in page
    assert "&lt;b&gt;?" in page
    assert "<td>0.500 <small>0.400 to 0.600</small></td>" in page
    saved = json.loads(run.report_file.with_suffix(".json").read_text())["evaluation"]
    assert saved == json.loads(FOUND.model_dump_json(exclude={"examples", "panel_examples"}))
    assert "What it forgot" not in page

    assert "core-seconds" not in page, "it was not measured"

    cost = AnswerCost(core_seconds=0.72, streams=8, core_hour_price=0.05, teacher="openai/big", teacher_price=1.0)
    with_panel = FOUND.model_copy(update={"panel": PANEL, "panel_examples": FOUND.examples, "cost": cost})
    (run.student / STUDENT_EVALUATION_FILE).write_text(with_panel.model_dump_json())
    write_run_report(run, manifest, plan.recipe, [], [])
    page = run.report_file.read_text()
    assert "student 0.01 on this machine (0.72 core-seconds each, 8 at once, 0.05 per core-hour); teacher" in page
    assert "student: 30 % (22 % to 40 %) of the recipe's requests, 30 % (20 % to 42 %) of the panel" in page
    assert page.count('<g class="model ') == 2, "the start has no pass rate on the requests"
    assert "Student loses 6 to 30 points against its start" in page
    assert json.loads(run.report_file.with_suffix(".json").read_text())["evaluation"]["panel"]["tasks"] == 64


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluate", "missing"], "error: missing: there is no student: neither it nor missing/student has a config.json"),
        (["evaluate", "{folder}"], "is not the student of a run, so name the recipe to hold it to: --recipe RECIPE"),
        (["evaluate", "{folder}", "--recipe", "poems"], "error: poems: no recipe of this name"),
        (["evaluate", "{folder}", "--recipe", "smoke"], "is a 'gpt2'; a student is a bitnet, gemma3_text, granite, "),
        (["evaluate", "{folder}", "--check", "exact"], "--check: is for rows of --data; a recipe has its own checks"),
        (["evaluate", "{folder}", "--data", "missing.jsonl"], "missing.jsonl: is not there"),
        (["evaluate", "{folder}", "--data", "x.jsonl", "--recipe", "smoke"], "--recipe: cannot be combined with --data"),
        (["evaluate", "{folder}", "--data", "x.jsonl", "--check", "exacto"], "there is no check 'exacto'"),
        (["evaluate", "{folder}", "--data", "x.jsonl", "--check", "no.py:mine"], "no.py: is not a Python file"),
        (["evaluate", "{folder}", "--data", "x.jsonl", "--check", "occurs", "--set", "fild=text"], "did you mean `field`?"),
        (["evaluate", "{folder}", "--data", "x.jsonl", "--set", "kind=exact"], "name a check with options: --check NAME"),
        (["evaluate", "{folder}", "--data", "x.jsonl", "--check", "judge"], "asks a teacher, and there is none without a recipe"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "student"
    folder.mkdir()
    settings = {"model_type": "gpt2", "max_position_embeddings": 4096, "hidden_size": 96, "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps(settings))
    code, out, err = called(capsys, *(word.format(folder=folder) for word in words), "-q")
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
    plan = load_recipe_plan("smoke", ["samples=40"])
    run = open_run(folder, plan.recipe, plan.sources, folder=plan.folder, resume=False)
    train, held_out = conversations()[:9], conversations()[9:]
    train_student(train, config, run.student, seed=7, progress=quiet, held_out=held_out)
    rows = [[message.model_dump() for message in talk] for talk in held_out]
    write_parquet(run.dataset / "validation.parquet", pl.DataFrame({"messages": rows}))
    return run


OWN_CHECK = """
from agents.checks import Options, Subject, check

@check("likes", Options)
def likes(subject: Subject, options: Options) -> str | None:
    \'\'\'The answer must be as the row has it.\'\'\'
    if subject.seed.data["topic"] == "tea":
        raise KeyError("tea")
    return None if subject.candidate.answer == subject.seed.data["expected"] else "it does not"
"""


@pytest.mark.slow
@pytest.mark.usefixtures(one_thread.__name__)
@pytest.mark.parametrize("tiny_model", [tiny_llama, tiny_qwen3])
def test_a_student_of_a_users_rows_is_evaluated_on_rows_outside_its_training(
    tiny_model: Callable[[int], Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny_tokenizer()
    start = saved(tiny_model(len(tokenizer)), tokenizer, tmp_path / "start")
    talk = conversations()
    rows = [
        {
            "instruction": question.content,
            "output": f" {answer.content}",
            "topic": question.content.split()[-1].strip("."),
        }
        for question, answer in talk
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("checks.py").write_text(OWN_CHECK)
    settings = [f"start={start}", "epochs=15", "learning_rate=3e-3", "batch_size=4", "max_tokens=64", "held_out=0.3"]
    code, out, _ = called(
        capsys, "distill", "rows.jsonl", "--out", "small", *(word for one in settings for word in ("--set", one)), "-q"
    )
    assert code == 0
    assert out.splitlines()[-1] == "next: stillhouse evaluate small --data rows.jsonl"
    code, out, err = called(capsys, *out.splitlines()[-1].split()[2:], "--check", "exact")
    assert code == 0
    assert "rows.jsonl: 4 of 12 rows, 8 left out that it was trained on" in out
    assert "student: loss" not in out
    assert "evaluate: student:" in err
    found = DatasetEvaluation.model_validate_json(Path("small/evaluation-data.json").read_text())
    assert (found.total, found.trained_on, found.evaluated, found.conversations, found.asked) == (12, 8, 4, 4, 4)
    student, before = found.rows
    assert (student.role, before.role) == ("student", "start")
    assert student.nats_per_token is not None
    assert before.nats_per_token is not None
    assert student.nats_per_token < before.nats_per_token - 1
    assert found.cost
    assert found.cost.core_seconds > 0
    assert f"  {found.cost.describe()}\n" in out
    assert student.pass_rate
    assert (before.passed, student.pass_rate.value) == (0, (student.passed or 0) / 4)
    assert found.tokens > 20

    Path("trained.jsonl").write_text("".join(
        json.dumps({"messages": [turn.model_dump() for turn in one]}) + "\n" for one in talk[:1]
    ))  # fmt: skip
    code, out, _ = called(
        capsys, "evaluate", "small", "--data", "rows.jsonl", "--check", "checks.py:likes", "-n", "4", "--json", "-q"
    )
    evaluation = DatasetEvaluation.model_validate_json(out)
    assert (code, evaluation.check) == (0, "checks.py:likes")
    for example in evaluation.examples:
        fault = example.answers["student"].fault
        assert "tea" not in example.question or (fault and "KeyError" in fault), "it costs its row"
    long = {"instruction": "Write about bees.", "output": "I like bees" + " and bees" * 60}
    Path("long.jsonl").write_text(json.dumps(long) + "\n")
    code, out, _ = called(capsys, "evaluate", "small", "--data", "long.jsonl", "-q")
    assert code == 0
    assert "1 row longer than the student's max_tokens = 64, truncated as in training" in out
    assert "No loss of" not in out
    Path("small/trained_rows.txt").unlink()
    code, out, _ = called(capsys, "evaluate", "small", "--data", "trained.jsonl", "-q")
    assert code == 0
    assert "The student's training rows are not recorded" in out
    assert "No pass rates: name a check, as in --check exact." in out
    Path("small/trained_rows.txt").write_text(conversation_digest(talk[0]) + "\n")
    code, _, err = called(capsys, "evaluate", "small", "--data", "trained.jsonl", "-q")
    assert (code, "the student was trained on each of its 1 row" in err) == (2, True)


@pytest.mark.slow
def test_a_runs_student_is_compared_with_its_teacher_and_its_start(run: RunDir, tmp_path: Path) -> None:
    session = CommandSession()
    session.quiet = True
    (tmp_path / "rows.jsonl").write_text('{"text": "I like", "ends": [" bees", " owls"]}\n' * 3)
    (tmp_path / "ends.yaml").write_text(
        f"task: ends\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_choice: '{{ends}}'\n"
        "doc_to_target: 0\nmetric_list: [{metric: acc, higher_is_better: true}]\n"
    )
    tasks = str(tmp_path / "ends.yaml")
    options = EvaluationOptions(12, tasks=tasks, task_rows=2, runs_dir=str(run.path.parent), panel=6)
    task = prepare_student_evaluation(run.path, options)
    found = asyncio.run(evaluate_student(task, session))
    assert StudentEvaluation.model_validate_json((run.student / STUDENT_EVALUATION_FILE).read_text()) == found
    assert (found.seeds, found.first_seed, found.held_out, found.notes) == (12, 40, 3, [])
    teacher, prompted, student, start = found.rows
    assert [row.role for row in found.rows] == ["teacher", "prompted teacher", "student", "start"]
    assert prompted.passed, "a script that is often right"
    for row in found.rows:
        assert row.passed is not None
        assert row.passed + sum(row.faults.values()) == 12
    assert teacher.passed
    assert found.retention
    assert found.retention.value == (student.passed or 0) / teacher.passed
    assert (teacher.nats_per_token, teacher.bytes) == (None, None), "it is a script"
    assert student.nats_per_token
    assert start.nats_per_token
    assert student.nats_per_token < start.nats_per_token - 1
    assert student.bytes == start.bytes == (run.student / "student-q8_0.gguf").stat().st_size
    [ends] = found.tasks
    assert (ends.task, ends.metric, ends.rows) == ("ends", "acc", 2)
    assert ends.scores.keys() == {"student", "start"}, "a scripted teacher has no weights"
    assert "ends, acc, 2 rows: student" in format_student_evaluation(found)
    assert found.cost
    assert found.cost.core_seconds > 0
    assert f"  {found.cost.describe()}\n" in format_student_evaluation(found)
    assert len(found.examples) == 10
    assert found.examples[0].answers.keys() == {"teacher", "prompted teacher", "student", "start"}
    panel = found.panel
    assert panel
    assert (panel.tasks, panel.groups, panel.questions) == (6, {"constraints": 3, "reasoning": 3}, 1)
    assert [model.role for model in panel.models] == ["teacher", "student", "start"]
    assert panel.comparison
    assert panel.divergence is None, "one question has no interval"
    assert [example.answers.keys() for example in found.panel_examples] == [{"teacher", "student", "start"}]
    assert "general panel: 6 tasks that the recipe does not train: teacher" in format_student_evaluation(found)


@pytest.mark.slow
@pytest.mark.usefixtures(one_thread.__name__)
def test_a_model_loses_nothing_against_itself_and_surely_with_its_layers_reversed(tmp_path: Path) -> None:
    """The start's answers are the shipped ones, where these count."""
    plan = load_recipe_plan("constrained-instructions")
    panel = build_general_panel(plan, 64)
    panel = panel._replace(seeds=panel.seeds[1::3])  # three of them open questions
    start, broken = (tmp_path / name / "start" for name in ("start", "broken"))
    write_embedded_teacher(start)
    model, tokenizer = read_student(start)
    model.model.layers = model.model.layers[::-1]
    saved(model, tokenizer, broken)
    weights = export_gguf(start, "q8_0").path
    session = CommandSession()
    session.quiet = True

    def compare(student: Path, exported: Path) -> GeneralPanelRecord:
        files = {"student": exported, "start": weights}
        models = {
            role: configure_student_as_teacher(file, plan.recipe.generator_teacher) for role, file in files.items()
        }
        folders = {"student": student, "start": start}
        asked = PanelModels(models, folders, files, tmp_path / "cache", BudgetConfig(), None, Spending())
        record, _, spent = asyncio.run(evaluate_general_panel(panel, asked, session))
        assert spent == Spending(), "the teacher was not asked"
        assert GeneralPanelRecord.model_validate_json(record.model_dump_json()) == record
        return record

    record = compare(start, weights)
    assert record.comparison
    assert record.divergence
    assert record.comparison.difference.value == 0
    assert record.comparison.conclusion == "no certain difference"
    assert record.divergence.value < 1e-4
    before = record.find_model("start")
    assert before
    assert 0.15 < before.pass_rate.value < 0.85
    assert before.words > 50

    record = compare(broken, export_gguf(broken, "q8_0").path)
    assert record.comparison
    assert record.divergence
    assert record.comparison.conclusion == "worse"
    assert record.divergence.low > 1


@pytest.mark.usefixtures(one_thread.__name__)
def test_the_divergence_grows_with_the_change_of_the_weights(tmp_path: Path) -> None:
    import torch

    tokenizer = tiny_tokenizer()
    model = tiny_llama(len(tokenizer))
    start = saved(model, tokenizer, tmp_path / "start")
    found = []
    for step in (0.0, 0.02, 0.1):
        with torch.no_grad():
            for weight in model.parameters():
                weight += step * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        found.append(measure_answer_divergence(start, saved(model, tokenizer, tmp_path / f"{step}"), conversations()))
    nothing, little, much = found
    assert len(nothing) == len(conversations())
    assert max(nothing) < 1e-5
    assert all(0 < low < high for low, high in zip(little, much, strict=True))
