"""A small generative student that answers in one reply: its probabilities are calibrated, certified and served."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from core.config.students import StudentConfig
from flows.run.dataset_distillation import distill_dataset
from plugins.serving.decision_students.agreement_bound import AgreementTarget
from plugins.serving.decisions.family import format_decision_prompt
from plugins.serving.decisions.generative_encoder import open_decision_student
from plugins.serving.decisions.questions import DecisionQuestion, parse_questions
from plugins.serving.decisions.student_creation import DecisionSettings, create_decision_student
from plugins.serving.tests.decision_serving import post, served
from students.gguf_export import export_gguf
from tests.students.conftest import quiet, saved, tiny_llama, tiny_tokenizer

THINGS = {"delivery": ["parcel", "parcels"], "payment": ["invoice", "invoices"]}
QUESTIONS = parse_questions([
    {"name": "subject", "ask": "?", "labels": list(THINGS)},
    {"name": "marks", "ask": "?", "type": "several_of", "labels": ["a", "b"]},
])  # fmt: skip


def draw_rows(number: int, seed: int) -> list[dict[str, Any]]:
    """Of each ten, one has the other label, whatever is in it."""
    rng, rows = Random(seed), []
    for i in range(number):
        subject = rng.choice(list(THINGS))
        marks = [mark for mark in ("a", "b") if rng.random() < 0.5]
        text = f"{rng.choice(THINGS[subject])} {' '.join(marks)} {i}"
        given = subject if rng.random() < 0.9 else next(name for name in THINGS if name != subject)
        rows.append({"text": text, "answers": {"subject": given, "marks": marks}, "true": subject})
    return rows


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a student that learned other rows than those of the decision student."""
    folder = tmp_path_factory.mktemp("generative")
    wording = "\n".join(f"- {question.wording}" for question in QUESTIONS)
    lines = [
        json.dumps({"messages": [
            {"role": "user", "content": format_decision_prompt(row["text"], wording)},
            {"role": "assistant", "content": json.dumps(row["answers"])},
        ]})
        for row in draw_rows(400, 1)
    ]  # fmt: skip
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = tiny_tokenizer(*lines[:100])
    start = saved(tiny_llama(len(tokenizer)), tokenizer, folder / "start")
    config = StudentConfig.model_validate({
        "start": str(start), "epochs": 16, "learning_rate": 1e-2, "batch_size": 16, "max_tokens": 512, "precision": "float32",
    })  # fmt: skip
    distill_dataset(folder / "train.jsonl", folder / "student", config, 3, quiet)
    return export_gguf(folder / "student", "q8_0").path


@pytest.mark.slow
@pytest.mark.xdist_group("students")
def test_its_probabilities_are_calibrated_certified_and_served(weights: Path, tmp_path: Path) -> None:
    rows = draw_rows(240, 2)
    source = tmp_path / "labeled.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    questions = tmp_path / "questions.toml"
    questions.write_text("\n".join(format_question(question) for question in QUESTIONS), encoding="utf-8")
    target = AgreementTarget(agreement=0.75, confidence=0.9)
    shown: list[str] = []
    settings = DecisionSettings(source, tmp_path / "out", questions, None, str(weights), target)
    report = create_decision_student(settings, shown.append)
    subject, marks = report.questions
    assert subject.student.agreement > 0.75
    assert marks.student.agreement > 0.75
    assert subject.threshold is not None
    assert (tmp_path / "out" / "student.gguf").read_bytes() == weights.read_bytes()
    assert not any("no probabilities" in line for line in shown)
    assert "decisions: 200 of 240 texts answered" in shown

    texts = [row["text"] for row in rows]
    with open_decision_student(tmp_path / "out") as student:
        decided = [one["subject"] for one in student.decide(texts)]

        async def talk() -> Any:
            async with served(student) as (url, _service):
                return await post(f"{url}/decide", {"texts": texts[:2]})

        status, body = asyncio.run(talk())
    assert status == 200
    assert [one["subject"]["answer"] for one in body["decisions"]] == [one.answer for one in decided[:2]]
    agrees = [one.answer == row["answers"]["subject"] for one, row in zip(decided, rows, strict=True)]
    assert 0.75 < np.mean(agrees) < 0.95, "a tenth of the labels is of the other subject"
    assert np.mean([one.score for one in decided]) == pytest.approx(np.mean(agrees), abs=0.08)


def format_question(question: DecisionQuestion) -> str:
    return f'[[questions]]\nname = "{question.name}"\nask = "?"\ntype = "{question.type}"\nlabels = {list(question.labels)}\n'
