"""A student of an encoder of Transformers: exported, and used without torch; or not, with the reason."""

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import onnx
import pytest

from core.errors import UsageError
from core.project_files import PROJECT
from plugins.serving.decision_students.agreement_bound import AgreementTarget
from plugins.serving.decision_students.decision_student import read_decision_student
from plugins.serving.decisions.student_creation import DecisionSettings, create_decision_student
from tests.support.tiny_encoders import save_tiny_encoder

TEXT = "Where is my parcel?"
"""Of the documentation's lines."""
WITHOUT_TORCH = """
import json, sys
from pathlib import Path
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["sklearn"] = None
from plugins.serving.decision_students.decision_student import read_decision_student
(decided,) = read_decision_student(Path(sys.argv[1])).decide([sys.argv[2]])
print(json.dumps(decided["label"].probabilities))
"""


@pytest.fixture
def labeled(tmp_path: Path) -> tuple[Path, list[str]]:
    """A file of labeled texts, and the texts."""
    things = {"delivery": ["parcel", "courier", "shipment"], "payment": ["invoice", "refund", "receipt"]}
    rows = [
        {"text": f"Where is my {thing} number {i}?", "label": label}
        for i in range(20)
        for label, names in things.items()
        for thing in names
    ]
    file = tmp_path / "labeled.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file, [row["text"] for row in rows]


def make_settings(source: Path, encoder: Path) -> DecisionSettings:
    target = AgreementTarget(agreement=0.8, confidence=0.9)
    return DecisionSettings(source, source.parent / "student", encoder=str(encoder), target=target)


def test_the_exported_file_is_the_student_without_torch(
    labeled: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, texts = labeled
    encoder = save_tiny_encoder(tmp_path / "encoder", "bert", texts)
    shown: list[str] = []
    report = create_decision_student(make_settings(source, encoder), shown.append)
    assert report.onnx == "student.onnx"
    assert report.questions[0].student.agreement > 0.8
    assert not any("cannot" in line for line in shown)
    onnx.checker.check_model(tmp_path / "student" / "student.onnx")

    student = read_decision_student(tmp_path / "student")
    assert student.exported
    (decided,) = student.decide([TEXT])
    page = (PROJECT / "plugins" / "serving" / "decisions.md").read_text(encoding="utf-8")
    lines = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, np.ndarray] = {}
    exec(lines, names)
    np.testing.assert_allclose(names["probabilities"], list(decided["label"].probabilities.values()), atol=1e-5)
    assert capsys.readouterr().out.split() == [decided["label"].answer, str(decided["label"].certain)]

    arguments = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "student"), TEXT]
    run = subprocess.run(arguments, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == pytest.approx(decided["label"].probabilities, abs=1e-6)

    (tmp_path / "student" / "student.onnx").unlink()
    with pytest.raises(UsageError, match=r"student\.onnx and tokenizer\.json, which encode its texts, cannot be used"):
        read_decision_student(tmp_path / "student")


def test_an_encoder_of_the_hub_is_used_where_it_is_on_this_machine_and_fetched_nowhere(
    labeled: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, texts = labeled
    encoder = save_tiny_encoder(tmp_path / "encoder", "longformer", texts)
    create_decision_student(make_settings(source, encoder), lambda _: None)
    decided = read_decision_student(tmp_path / "student").decide([TEXT])
    file = tmp_path / "student/decisions.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "encoder": "owner/encoder"}))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        UsageError, match=r"'owner/encoder', which is not on this machine; .*`hf download owner/encoder`"
    ):
        read_decision_student(tmp_path / "student")
    stored = tmp_path / "cache/models--owner--encoder"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs/main").write_text("a" * 40)
    (stored / "snapshots").mkdir()
    encoder.rename(stored / "snapshots" / ("a" * 40))
    assert read_decision_student(tmp_path / "student").decide([TEXT]) == decided
