"""From labeled rows to a served student: the files, the answers over HTTP, the teacher for the rest, and what is refused."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from onnx import checker
from scipy.sparse import csr_array

from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.weights.embeddings import load_tokenizer
from plugins.serving.cascade.routing_signals import fit_cross_validated, fit_logistic, log_loss
from plugins.serving.cascade.serving_setup import ServingOptions
from plugins.serving.decision_students.agreement_bound import AgreementTarget
from plugins.serving.decision_students.classification_metrics import (
    estimate_accuracy_from_agreement,
    pairwise_agreement,
    summarize_votes,
)
from plugins.serving.decision_students.decision_student import read_decision_student
from plugins.serving.decision_students.linear_head import _fit_weights, fit_linear_head, softmax
from plugins.serving.decision_students.text_encoders import ENCODERS, hash_character_ngrams
from plugins.serving.decisions.decision_server import serve_decision_student
from plugins.serving.decisions.labeled_texts import estimate_label_noise, read_labeled_texts
from plugins.serving.decisions.student_creation import DecisionReport, DecisionSettings, create_decision_student
from plugins.serving.decisions.student_report import format_decision_report, write_decision_page
from plugins.serving.relay import open_relay
from plugins.serving.tests.decision_serving import post, served
from tests.support.http_serving import serve_handler

THINGS = {
    "delivery": ["parcel", "courier", "shipment", "tracking number", "delivery van"],
    "payment": ["invoice", "credit card", "refund", "bank transfer", "receipt"],
}
QUESTIONS = """
[[questions]]
name = "subject"
ask = "What is it about?"
labels = ["delivery", "payment"]

[[questions]]
name = "marks"
ask = "What does it have?"
type = "several_of"
labels = ["a date", "a greeting"]

[[questions]]
name = "object"
ask = "Which thing?"
type = "span"
"""
TARGET = AgreementTarget(agreement=0.8, confidence=0.9)
UNLIKE_ANY = "Quantum chromodynamics."


def write_rows(folder: Path, number: int = 120) -> Path:
    rng = Random(3)
    rows = []
    for i in range(number):
        subject = rng.choice(list(THINGS))
        thing = rng.choice(THINGS[subject])
        marks = [mark for mark in ("a date", "a greeting") if rng.random() < 0.5]
        text = f"My {thing} number {i} is missing{' since 3 May' * ('a date' in marks)}."
        text = f"Hello! {text}" if "a greeting" in marks else text
        votes = {"subject": [subject] * 3 if i % 10 else [subject, "delivery", "payment"]}
        rows.append({"text": text, "answers": {"subject": subject, "marks": marks, "object": thing}, "votes": votes})
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "questions.toml").write_text(QUESTIONS, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DecisionReport]:
    folder = tmp_path_factory.mktemp("decisions")
    source = write_rows(folder)
    settings = DecisionSettings(source, folder / "student", folder / "questions.toml", source, target=TARGET)
    return folder, create_decision_student(settings, lambda _text: None)


def test_the_student_learns_its_labels_and_its_page_shows_the_curve(made: tuple[Path, DecisionReport]) -> None:
    folder, report = made
    assert report.left_to_teacher == ["object"]
    subject, marks = report.questions
    assert subject.student.agreement > 0.9
    assert subject.threshold is not None
    assert subject.noise is not None
    assert 0.05 < subject.noise.disputed < 0.15
    assert subject.student.certified.coverage > 0.5
    assert marks.student.quality is None
    assert subject.test is not None
    # The file of the labels again: only the rows that the student is not made of are left.
    assert (subject.test.agreement, subject.test.oracle) == (subject.student.agreement, subject.student.oracle)
    assert "Certified: 80 % agreement with the teacher at 90 % confidence" in format_decision_report(report)
    page = write_decision_page(folder / "student", report).read_text(encoding="utf-8")
    assert page.count('<polyline class="line best"') == 2
    assert "the student’s threshold" in page


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_exported_file_gives_the_labels_of_the_student_in_memory(
    encoder: str, made: tuple[Path, DecisionReport], tmp_path: Path
) -> None:
    onnxruntime, tokenizers = pytest.importorskip("onnxruntime"), pytest.importorskip("tokenizers")
    settings = DecisionSettings(
        made[0] / "rows.jsonl", tmp_path / "student", made[0] / "questions.toml", encoder=encoder, target=TARGET
    )
    assert create_decision_student(settings, lambda _text: None).onnx == "student.onnx"
    folder = tmp_path / "student"
    checker.check_model(folder / "student.onnx")
    session = onnxruntime.InferenceSession(folder / "student.onnx", providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}
    assert wanted == {
        *(("input_ids", "attention_mask", "token_type_ids") if "minilm" in encoder else ()),
        *(("ngrams",) if "ngrams" in encoder else ()),
    }
    assert (folder / "tokenizer.json").is_file() == ("minilm" in encoder)
    tokenizer = tokenizers.Tokenizer.from_str(load_tokenizer().to_str())
    student = read_decision_student(folder)
    texts = [row["text"] for row in map(json.loads, (made[0] / "rows.jsonl").read_text().splitlines())]
    texts += [UNLIKE_ANY, "x", "Größe 中文", "The courier lost the invoice. " * 90]  # the last has several pieces
    outputs = [f"probabilities_{head.question.name}" for head in student.heads]
    for text, decided in zip(texts, student.decide(texts), strict=True):
        encoded = tokenizer.encode(text)
        pieces = [encoded, *encoded.overflowing]
        for piece in pieces:
            piece.pad(len(encoded.ids))
        ids = np.array([piece.ids for piece in pieces])
        mask = np.array([piece.attention_mask for piece in pieces])
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        inputs["ngrams"] = np.array(hash_character_ngrams(text), dtype=np.int64)
        found = session.run(outputs, {name: value for name, value in inputs.items() if name in wanted})
        for decision, exported in zip(decided.values(), found, strict=True):
            # Int8 activations of padded pieces are scaled together.
            np.testing.assert_allclose(
                exported, list(decision.probabilities.values()), atol=1e-4 if len(pieces) == 1 else 0.05
            )
        assert [*THINGS][found[0].argmax()] == decided["subject"].answer
    facts = json.loads(session.get_modelmeta().custom_metadata_map["stillhouse"])
    assert facts["questions"]["subject"]["classes"] == [*THINGS]
    assert facts["questions"]["subject"]["threshold"] == student.heads[0].guarantee.threshold


def test_few_labels_are_calibrated_on_predictions_out_of_fold(tmp_path: Path) -> None:
    source = write_rows(tmp_path, 80)
    settings = DecisionSettings(
        source, tmp_path / "out", tmp_path / "questions.toml", target=TARGET, calibration="cross"
    )
    report = create_decision_student(settings, lambda _text: None)
    assert report.texts == (64, 0, 16)
    assert report.questions[0].calibration[0] == 64
    assert "Cross-validated, which is no proof: 80 % agreement" in format_decision_report(report)
    assert "their out-of-fold predictions for the thresholds" in format_decision_report(report)
    assert read_decision_student(tmp_path / "out").heads[0].guarantee.calibration == "cross"


def test_a_student_whose_heads_do_not_fit_its_encoder_is_not_served(
    made: tuple[Path, DecisionReport], tmp_path: Path
) -> None:
    facts = json.loads((made[0] / "student" / "decisions.json").read_text())
    for head in facts["heads"][0]["heads"]:
        head["weights"] = [row[:-1] for row in head["weights"]]
    (tmp_path / "decisions.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="its heads do not fit its encoder minilm"):
        serve_decision_student(tmp_path, ServingOptions(), 0.0, "127.0.0.1", 0, [], as_json=True)
    with pytest.raises(UsageError, match="--draft: a decision student writes no tokens"):
        serve_decision_student(
            made[0] / "student", ServingOptions(draft="ngram"), 0.0, "127.0.0.1", 0, [], as_json=True
        )


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("heads", 0, "heads", 0, "temperature"), -0.1, "greater than or equal to 0.01"),
        (("heads", 0, "guarantee", "threshold"), -5, "greater than or equal to 0"),
        (("heads", 0, "heads"), [], "the heads do not fit the 2 answers of subject"),
        (("questions",), [], "a head answers a question that the student does not have"),
    ],
)
def test_a_damaged_student_is_refused(
    place: tuple[Any, ...], value: Any, fault: str, made: tuple[Path, DecisionReport], tmp_path: Path
) -> None:
    facts = json.loads((made[0] / "student" / "decisions.json").read_text())
    inner = facts
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "decisions.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match=fault):
        read_decision_student(tmp_path)


def test_a_student_is_not_written_among_other_files(made: tuple[Path, DecisionReport]) -> None:
    folder = made[0]
    with pytest.raises(UsageError, match="student: exists already and is not an empty folder"):
        create_decision_student(DecisionSettings(folder / "rows.jsonl", folder / "student"), lambda _text: None)


def test_decisions_are_served_in_both_protocols_and_bad_requests_are_refused(made: tuple[Path, DecisionReport]) -> None:
    student = read_decision_student(made[0] / "student")

    async def talk() -> None:
        async with served(student) as (url, _service):
            texts = ["The courier lost my parcel.", "The invoice was paid twice by credit card."]
            status, body = await post(f"{url}/decide", {"texts": texts, "questions": ["subject"]})
            assert status == 200
            assert [row["subject"]["answer"] for row in body["decisions"]] == ["delivery", "payment"]
            status, body = await post(f"{url}/decide", {"text": texts[0]})
            assert body["decisions"]["object"] == {
                "answer": None, "answered_by": "nobody", "certain": False, "score": None, "probabilities": {},
            }  # fmt: skip
            schema = {"type": "object", "properties": {"subject": {"enum": ["delivery", "payment"]}}}
            chat = {
                "model": "any", "messages": [{"role": "user", "content": texts[1]}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            }  # fmt: skip
            status, body = await post(f"{url}/chat/completions", chat)
            assert json.loads(body["choices"][0]["message"]["content"]) == {"subject": "payment"}
            for wrong, fault in (
                ({"text": "a", "texts": ["b"]}, "give either"),
                (
                    {"text": "a", "questions": ["colour"]},
                    "'colour' is unknown; this student answers subject, marks, object",
                ),
                ({"text": ""}, "at least 1 character"),
                ({"words": "a"}, "extra inputs"),
            ):
                status, body = await post(f"{url}/decide", wrong)
                assert status == 400
                assert fault in body["error"]["message"]
            status, body = await post(f"{url}/chat/completions", {**chat, "stream": True})
            assert (status, body["error"]["param"]) == (400, "stream")

    asyncio.run(talk())


def test_the_teacher_answers_the_rest_and_audits_tell_when_the_guarantee_no_longer_holds(
    made: tuple[Path, DecisionReport],
) -> None:
    student = read_decision_student(made[0] / "student")
    asked: list[list[str]] = []

    async def answer(request: web.Request) -> web.Response:
        """Says payment of everything, so that it contradicts the student on each delivery."""
        body = await request.json()
        names = body["response_format"]["json_schema"]["schema"]["required"]
        asked.append(names)
        reply = {name: {"subject": "payment", "marks": [], "object": "parcel"}[name] for name in names}
        message = {"role": "assistant", "content": f"```json\n{json.dumps(reply)}\n```"}
        return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    async def talk() -> None:
        async with serve_handler("/v1/chat/completions", answer) as address:
            config = TeacherConfig(model="openai/big", base_url=f"{address}/v1", api_key_env="")
            async with open_relay(config) as relay, served(student, relay, audit=1.0) as (url, service):
                body = {"text": "My parcel number 7 is missing since 3 May.", "questions": ["object"]}
                assert (await post(f"{url}/decide", body))[1]["decisions"]["object"]["answer"] == "parcel"
                assert asked == [["object"]]
                texts = [f"My {thing} number {i} is missing." for i in range(8) for thing in THINGS["delivery"]]
                status, found = await post(f"{url}/decide", {"texts": texts, "questions": ["subject"]})
                assert status == 200
                certain = [row["subject"] for row in found["decisions"] if row["subject"]["answered_by"] == "student"]
                assert {decision["answer"] for decision in certain} == {"delivery"}
                status = service.read_drift()["subject"]
                assert status.audited == status.disagreements == len(certain) > 20
                assert "the guarantee no longer holds" in status.warnings[0]

    asyncio.run(talk())


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for rows, fault in (
        ([{"text": "a"}], "rows need a `label` with 2 to 200 different values; found 0"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"label": "y"}], "rows.jsonl:3: needs `text`"),
        (
            [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": "c"}],
            "rows.jsonl:3: has no answer to 'label'",
        ),
        (
            [{"text": "a", "label": "x", "votes": {"label": "x"}}, {"text": "b", "label": "y"}],
            "rows.jsonl:1: the votes of 'label' must be a list",
        ),
        (
            [{"text": "a", "label": "x", "votes": [1]}, {"text": "b", "label": "y"}],
            "rows.jsonl:1: `votes` and `answers`",
        ),
        (
            [{"text": "a", "label": "x", "probabilities": {"label": {"z": 1}}}, {"text": "b", "label": "y"}],
            "rows.jsonl:1: the probabilities of 'label' must be an object with numbers, whose keys are of x, y",
        ),
        (
            [
                {"text": "a", "label": "x", "probabilities": {"label": {"x": 0.7, "y": 0.7}}},
                {"text": "b", "label": "y"},
            ],
            "rows.jsonl:1: the probabilities of 'label' must be from 0 to 1, with the sum 1",
        ),
    ):
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        with pytest.raises(UsageError, match=fault):
            read_labeled_texts(file)
    file.write_text("\n".join(json.dumps({"text": str(i), "label": "xy"[i % 2]}) for i in range(6)), encoding="utf-8")
    with pytest.raises(UsageError, match="has 6 labeled texts; a student needs 20"):
        create_decision_student(DecisionSettings(file, tmp_path / "out"), lambda _text: None)
    labeled = read_labeled_texts(file)
    assert estimate_label_noise(labeled.questions[0], labeled) is None, "one vote each"


def test_probabilities_of_a_file_are_the_targets_and_tell_how_often_two_votes_agree(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": "x", "probabilities": {"label": {"x": 0.8, "y": 0.2}}},
        {"text": "A", "label": "x", "probabilities": {"label": {"x": 0.4, "y": 0.6}}},
        {"text": "a ", "label": "y"},
        {"text": "b", "probabilities": {"label": {"y": 0.99}}},
        {"text": "c", "label": "y"},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    labeled = read_labeled_texts(file)
    (question,) = labeled.questions
    assert labeled.label(question).shares == [
        {"x": pytest.approx(0.4), "y": pytest.approx(0.6)},
        {"y": 1.0},
        {"y": 1.0},
    ]
    assert labeled.label(question).answers == ["y", "y", "y"]
    by_votes = estimate_label_noise(question, labeled)
    assert by_votes, "one text has a vote alone"
    assert not by_votes.drawn
    noise = estimate_label_noise(question, labeled.take([0, 1]))
    assert noise
    assert (noise.agreement, noise.disputed, noise.drawn) == (pytest.approx(0.76), pytest.approx(0.24), True)
    assert "drawn by the teacher's probabilities agree in 76 % of texts" in noise.words
    assert labeled.take([1, 2]).label(question).shares == [{"y": 1.0}, {"y": 1.0}]


def draw_votes(rng: np.random.Generator, truth: np.ndarray, accuracies: list[float], classes: int) -> np.ndarray:  # type: ignore[type-arg]
    wrong = (truth[:, None] + rng.integers(1, classes, (len(truth), len(accuracies)))) % classes
    right = rng.random(wrong.shape) < np.array(accuracies)
    return np.where(right, truth[:, None], wrong)


def test_agreement_of_votes_gives_their_accuracy() -> None:
    rng = np.random.default_rng(9)
    votes = draw_votes(rng, rng.integers(0, 5, 4000), [0.9] * 3, 5)
    agreement = pairwise_agreement(votes.tolist())
    assert agreement is not None
    assert estimate_accuracy_from_agreement(agreement, 5) == pytest.approx(0.9, abs=0.01)
    assert estimate_accuracy_from_agreement(0.1, 5) == pytest.approx(0.2)


def test_votes_are_summarized() -> None:
    summary = summarize_votes(["bug", "question", "bug", "bug"])
    assert summary.majority == "bug"
    assert summary.shares == {"bug": 0.75, "question": 0.25}
    assert summary.disagreement == pytest.approx(0.5)  # 3 of 6 pairs differ
    assert summarize_votes(["a"]).disagreement == 0


ROWS, COLUMNS, CLASSES, PENALTY = 60, 400, 3, 0.1


def make_rows(seed: int) -> tuple[csr_array, np.ndarray]:
    """Sparse rows of norm 1, four of them equal, one empty; classes that depend on a few columns."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, ROWS)
    rows = rng.random((ROWS, COLUMNS)) * (rng.random((ROWS, COLUMNS)) < 0.1)
    rows[np.arange(ROWS), classes] += 0.8
    rows[1:4] = rows[0]
    classes[1:4] = classes[0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[4] = 0
    return csr_array(rows), np.eye(CLASSES)[classes]


def test_a_fit_in_the_span_of_the_rows_is_the_fit_to_all_columns() -> None:
    rows, targets = make_rows(1)
    others, _ = make_rows(2)
    fit = fit_linear_head(rows, targets, 7, (PENALTY,))
    weights, intercepts = _fit_weights(rows, targets, PENALTY)
    assert np.array(fit.head.weights).shape == (CLASSES, COLUMNS)
    for some in (rows, others):
        expected = softmax(some @ weights.T + intercepts, fit.head.temperature)
        np.testing.assert_allclose(fit.head.predict_probabilities(some), expected, atol=0.01)
    assert (fit.head.predict_probabilities(rows).argmax(axis=1) == targets.argmax(axis=1)).mean() > 0.9
    shuffled = targets[np.random.default_rng(3).permutation(ROWS)]
    missed = fit_linear_head(rows, shuffled, 7, (PENALTY,)).out_of_fold.argmax(axis=1) == shuffled.argmax(axis=1)
    assert missed.mean() < 0.6 < (fit.out_of_fold.argmax(axis=1) == targets.argmax(axis=1)).mean()


def test_the_classifier_is_at_its_optimum_and_recovers_planted_weights() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(600, 4)) * [1, 10, 0.1, 0] + [0, 5, 2, 3]
    logits = 1.5 * rows[:, 0] - 0.1 * (rows[:, 1] - 5) + 0.4
    classes = rng.random(600) < 1 / (1 + np.exp(-logits))
    model = fit_logistic(rows, classes, 2.0)
    standard = (rows - model.means) / model.scales
    slope = standard.T @ (model.predict_probability(rows) - classes) + 2.0 * np.array(model.weights)
    assert np.abs(slope).max() < 1e-6, "the derivative of the penalised loss"
    assert model.weights[0] == pytest.approx(1.5, abs=0.35)
    assert model.weights[1] == pytest.approx(-1.0, abs=0.3)
    assert abs(model.weights[2]) < 0.25
    assert model.weights[3] == 0, "a column that never changes"
    assert fit_logistic(rows * 100 - 7, classes, 2.0).predict_probability(rows * 100 - 7) == pytest.approx(
        model.predict_probability(rows), abs=1e-6
    )
    assert fit_logistic(rows, ~classes, 2.0).predict_probability(rows) == pytest.approx(
        1 - model.predict_probability(rows), abs=1e-6
    )


def test_out_of_fold_predictions_of_noise_are_no_better_than_the_base_rate() -> None:
    rng = np.random.default_rng(7)
    seen, unseen = [], []
    for _ in range(12):
        rows, classes = rng.normal(size=(60, 8)), rng.random(60) < 0.4
        guess = log_loss(np.full(60, classes.mean()), classes)
        seen.append(log_loss(fit_logistic(rows, classes, 0.3).predict_probability(rows), classes) - guess)
        unseen.append(log_loss(fit_cross_validated(rows, classes, 1).probabilities, classes) - guess)
    assert np.mean(seen) < -0.05, "rows that were fitted to flatter it"
    assert np.mean(unseen) > -0.01


def test_a_single_class_and_separable_classes_have_finite_fits() -> None:
    rows = np.linspace(-1, 1, 30)[:, None]
    assert fit_logistic(rows, np.ones(30, bool), 1.0).predict_probability(rows).min() > 0.9
    split = fit_logistic(rows, rows[:, 0] > 0, 0.3).predict_probability(rows)
    assert ((split > 0.5) == (rows[:, 0] > 0)).all()
    assert np.isfinite(split).all()
