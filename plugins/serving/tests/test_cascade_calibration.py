"""A student-first cascade: evaluated, printed, and calibrated on a student that really answers."""

import asyncio
import html
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest

from agents.calls.reply_cache import CACHE_FILE
from agents.studies.held_out_evaluation import HeldOutResult
from core.config.teachers import TeacherConfig
from core.errors import RunFailed
from core.plugins import locate_data
from core.runs.run_dir import open_run
from core.sample import TokenUsage
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.report.run_report import write_run_report
from flows.terminal.console import SESSION, CommandSession
from plugins.serving.cascade.cascade_calibration import (
    calibrate_cascade,
    format_routing_result,
    prepare_cascade_calibration,
)
from plugins.serving.cascade.routing_curves import area_over_random, split_halves
from plugins.serving.cascade.routing_result import (
    CLASSIFIER_SIGNAL,
    CalibrationSampling,
    CascadeValue,
    PairedAnswers,
    RoutingResult,
    estimate_cascade_value,
    read_routing_result,
)
from plugins.serving.cascade.routing_signals import QUESTION_SIGNAL
from teachers.base import TeacherReply, TokenCertainty
from tests.flows.commands.test_commands import called
from tests.flows.data.test_foreign_runs import run_with_checks
from tests.support.exported_students import export_student

FREE = TeacherConfig(model="local/smollm2-135m")
SEEDS = 120


def result(
    seed: int, *, passed: bool, logprob: float = -0.5, answer: str = "It rains.", tokens: int = 30
) -> HeldOutResult:
    certainty = TokenCertainty(logprobs=(logprob, logprob * 2), entropies=(-logprob, -logprob))
    usage = TokenUsage(calls=1, prompt_tokens=10, completion_tokens=tokens)
    reply = TeacherReply(text=answer, finished=True, usage=usage, certainty=certainty)
    return HeldOutResult(seed, f"Say {seed} words.", answer, None if passed else "max_words", "", (reply,))


def answers_of(student: Sequence[bool], teacher: Sequence[bool], draws: int = 1, spread: float = 0.3) -> PairedAnswers:
    """Of a student whose probabilities tell somewhat whether it passes."""
    rng = Random(1)
    own = [
        result(i, passed=passed, logprob=min(-0.01, -0.4 - 0.6 * (not passed) + rng.gauss(0, spread)))
        for i, passed in enumerate(student)
    ]
    drawn = [[result(i, passed=True, answer=rng.choice(("It rains.", "It snows now."))) for i in range(len(student))]]
    return PairedAnswers(own, [result(i, passed=passed, tokens=90) for i, passed in enumerate(teacher)], drawn * draws)


def passing(share: float, seed: int) -> list[bool]:
    rng = Random(seed)
    return [rng.random() < share for _ in range(SEEDS)]


@cache
def cascade_value(student: float, teacher: float, config: str = FREE.model_dump_json()) -> CascadeValue:
    """Of models with these pass rates. Computed once: tests only read it."""
    answers = answers_of(passing(student, 1), passing(teacher, 2))
    return estimate_cascade_value(answers, TeacherConfig.model_validate_json(config), 7)


def test_a_better_teacher_and_an_informative_signal_make_a_route() -> None:
    found = cascade_value(0.5, 0.9)
    assert (found.verdict, found.seeds, found.chosen_on, found.told_on) == ("route", 120, 60, 60)
    assert found.best in ("log_probability", "sequence_log_probability", "negative_entropy", CLASSIFIER_SIGNAL)
    assert found.find_curve(QUESTION_SIGNAL).area.low <= 0, "the questions say nothing"
    best = found.find_curve(found.best)
    assert best.area.low > 0
    assert best.at_share.quality.value > found.random[6].value
    assert found.aims[6] == best.at_share.aim
    taken = 1 - best.at_quality.share.value
    assert taken > 1 - found.random_share_at_quality
    assert f"The student can take {round(100 * taken)} % (" in found.answer
    assert abs(found.find_curve("agreement").area.value) < abs(best.area.value)
    assert found.classifier
    assert estimate_cascade_value(answers_of(passing(0.5, 1), passing(0.9, 2)), FREE, 7) == found


def test_thresholds_and_the_best_signal_are_chosen_on_their_own_half() -> None:
    student, teacher = passing(0.5, 2), passing(0.9, 3)
    answers = answers_of(student, teacher, spread=2.0)
    chosen, _ = split_halves(SEEDS, 7)
    certainties = [reply.certainty for one in answers.student for reply in one.replies if reply.certainty]
    scores = np.array([one.logprobs for one in certainties])[chosen].mean(1)
    gain = np.subtract(teacher, student, dtype=float)[chosen]
    found = estimate_cascade_value(answers, FREE, 7)
    curve = found.find_curve("log_probability")
    assert curve.scores == pytest.approx(np.sort(scores))
    assert curve.chosen_area == pytest.approx(area_over_random(gain, scores))
    best = max(found.curves, key=lambda one: one.chosen_area)
    assert found.best == best.signal
    assert max(found.curves, key=lambda one: one.area.value) != best, "the other half would choose another"


def questions_of_two_kinds(number: int) -> tuple[list[str], list[bool]]:
    """Questions, and whether each is a sum: only a few distinct texts."""
    rng = Random(5)
    sums = [f"What is {a} plus {b}?" for a in (3, 17, 40) for b in (5, 28)]
    stories = [
        f"Tell a short story about {thing}." for thing in ("a fox", "the sea", "a lost key", "snow", "my aunt", "Rome")
    ]
    kinds = [rng.random() < 0.5 for _ in range(number)]
    return [rng.choice(sums if kind else stories) for kind in kinds], kinds


def test_the_question_alone_tells_where_the_student_fails() -> None:
    """The student's answers say nothing, and those to half of the sums have no end: the question knows neither."""
    rng = Random(3)
    questions, sums = questions_of_two_kinds(SEEDS * 2)
    student = [rng.random() < (0.1 if one else 0.8) for one in sums]
    answers = answers_of(student, [rng.random() < 0.9 for _ in sums], draws=0, spread=50.0)
    asked = [one._replace(question=text) for one, text in zip(answers.student, questions, strict=True)]
    found = estimate_cascade_value(answers._replace(student=asked), FREE, 7)
    curve = found.find_curve(QUESTION_SIGNAL)
    assert curve.area.low > 0
    assert found.question
    story, calculation = found.question.score(["Tell a short story about a dog.", "What is 31 plus 12?"])
    assert story - calculation > 0.3
    chosen, _ = split_halves(len(sums), 7)
    fitted = found.question.score([questions[i] for i in chosen])
    assert curve.scores != pytest.approx(np.sort(fitted), abs=1e-6), "thresholds are of scores out of fold"

    cut = [one._replace(fault="cut off") if i % 4 == 0 else one for i, one in enumerate(asked)]
    cut_curve = estimate_cascade_value(answers._replace(student=cut), FREE, 7).find_curve(QUESTION_SIGNAL)
    assert cut_curve.scores[0] > -1, "no score of an answer that cannot be trusted"

    rng.shuffle(asked)
    unrelated = [one._replace(question=other.question) for one, other in zip(answers.student, asked, strict=True)]
    control = estimate_cascade_value(answers._replace(student=unrelated), FREE, 7)
    assert control.find_curve(QUESTION_SIGNAL).area.low <= 0


def test_untrusted_answers_go_to_the_teacher_first() -> None:
    answers = answers_of(passing(0.5, 1), passing(0.9, 2), draws=0)
    cut = [one._replace(fault="cut off") if i % 10 == 0 else one for i, one in enumerate(answers.student)]
    found = estimate_cascade_value(answers._replace(student=cut), FREE, 7)
    assert [curve.signal for curve in found.curves][-1] == CLASSIFIER_SIGNAL
    assert "agreement" not in {curve.signal for curve in found.curves}
    for curve in found.curves:
        if curve.signal == QUESTION_SIGNAL:
            continue
        least = curve.scores.count(curve.scores[0])
        assert 3 <= least <= 9
        assert curve.scores[least] > curve.scores[0] + 0.999
    assert any(note.startswith("12 of 120 answers of the student had no end") for note in found.notes)
    chosen, _ = split_halves(SEEDS, 7)
    none_there = [one._replace(fault="cut off") if i in chosen else one for i, one in enumerate(answers.student)]
    assert estimate_cascade_value(answers._replace(student=none_there), FREE, 7).classifier is None
    silent = [one._replace(replies=()) for one in answers.student]
    with pytest.raises(RunFailed, match="not one of the student's 120 answers has both an end and token probabilities"):
        estimate_cascade_value(answers._replace(student=silent), FREE, 7)


def routing_of(student: float, teacher: float, weights: str = "00", config: TeacherConfig = FREE) -> RoutingResult:
    """Of models with these pass rates."""
    worth = cascade_value(student, teacher, config.model_dump_json())
    return RoutingResult(
        student="s", weights=weights, type=None, teacher=config, recipe="smoke", seed=7, first_seed=60, draws=1,
        sampling=CalibrationSampling(temperature=0.3, top_p=1, max_tokens=90), **dict(worth),
    )  # fmt: skip


def test_the_runs_report_shows_the_cascade(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load_recipe_plan("smoke")
    run = open_run(tmp_path, plan.recipe, plan.sources, folder=plan.folder, resume=False)
    manifest = run.read_manifest()
    run.student.mkdir()
    found = routing_of(0.5, 0.9)
    (run.student / "routing.json").write_text(found.model_dump_json())
    record = {"start": "random", "parameters": 1, "train_samples": 9, "held_out_samples": 5, "steps": 3}
    manifest = type(manifest).model_validate(
        {**manifest.model_dump(), "student": {**record, "loss_before": 3.0, "loss_after": 2.0, "seconds": 1.0}}
    )
    locate_data(run.path, "serving").mkdir(parents=True)
    write_run_report(run, manifest, plan.recipe, [], [])
    page = run.report_file.read_text()
    assert "Student first, teacher when needed" in page
    assert html.escape(found.answer) in page.replace("&#39;", "&#x27;")
    assert page.count('<svg class="cascade"') == 2
    assert "nan" not in page

    monkeypatch.setattr(SESSION, "quiet", False)
    (run.student / "routing.json").write_text('{"seeds": 400}')
    write_run_report(run, manifest, plan.recipe, [], [])
    assert "the report omits the routing results" in capsys.readouterr().err
    assert "Student first, teacher when needed" not in run.report_file.read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["route", "missing"], "error: missing: there is no student"),
        (["route", "missing.gguf", "--recipe", "smoke"], "error: missing.gguf: there is no such file"),
        (
            ["route", "{folder}/m.gguf", "--recipe", "smoke", "--teacher", "missing"],
            "error: missing: there is no student",
        ),
        (
            ["route", "{folder}/m.gguf", "--recipe", "smoke", "--teacher", "{folder}/m.gguf"],
            "is the student itself; name a better",
        ),
        (["route", "{folder}"], "is not the student of a run, so name the recipe to hold it to: --recipe RECIPE"),
        (["route", "{folder}", "--recipe", "extraction"], "seeds alone ask no question and no student can be routed"),
    ],
)
def test_each_mistake_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    code, out, err = called(capsys, *(word.format(folder=tmp_path) for word in words), "-q")
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(tmp_path_factory.mktemp("student"))


def kept_answers(cache: Path) -> int:
    with closing(sqlite3.connect(cache / CACHE_FILE)) as store:
        [[count]] = store.execute("SELECT COUNT(*) FROM replies")
    return int(count)


@pytest.mark.slow
def test_a_student_that_really_answers_is_calibrated_and_its_answers_are_kept(weights: Path, tmp_path: Path) -> None:
    session = CommandSession()
    session.quiet = True
    plan = load_recipe_plan("smoke", ["agents.generator.temperature=1.0"])
    task = prepare_cascade_calibration(weights.parent, plan, 20, "q8_0", 1, tmp_path)
    found = asyncio.run(calibrate_cascade(task, session))
    assert read_routing_result(weights.parent / "routing.json") == found
    assert (found.seeds, found.first_seed, found.draws, found.teacher.model) == (20, 60, 1, "fake/writer")
    assert found.student_rate.value == 0, "its weights are random"
    assert found.teacher_rate.value > 0.2
    card = format_routing_result(found)
    assert (
        "smoke: 20 held-out seeds, from number 60 to number 79; thresholds chosen on 10, evaluated on the other 10"
        in card
    )
    assert found.cost
    assert f"  {found.cost.describe()}\n" in card
    assert kept_answers(tmp_path) >= 40, "a second calibration would not ask again"


def test_route_does_not_run_the_checks_of_a_run_of_a_stranger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mark = run_with_checks(tmp_path / "stranger")
    for name in (run.path, run.student):
        code, _, err = called(capsys, "route", str(name), "-n", "20", "--runs-dir", str(tmp_path / "mine"))
        assert code == 2
        assert f"its recipe would run the file {tmp_path}/stranger/checks.py (verifiers.0.path)" in err
    assert not mark.exists()
