"""A student of an encoder of Transformers: exported, and used without torch; or not, with the reason."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import huggingface_hub.constants
import numpy as np
import onnx
import pytest
from transformers import ByT5Tokenizer

from core.errors import UsageError
from core.project_files import PROJECT
from core.weights.embeddings import embed_texts, find_embeddings_problem
from flows.terminal.console import CommandSession
from plugins.serving.cascade.chat_server import open_chat_router, serve_router
from plugins.serving.cascade.serving_setup import ServingSetup
from plugins.serving.decision_students.agreement_bound import AgreementTarget
from plugins.serving.decision_students.decision_student import read_decision_student
from plugins.serving.decision_students.int8_encoder import build_int8_encoder, encode_by_minilm, read_exported_encoder
from plugins.serving.decision_students.transformers_encoder import ExportError, encode_by_transformers, export_encoder
from plugins.serving.decisions.student_creation import DecisionSettings, create_decision_student
from students.gguf_export import export_gguf
from tests.support.colored_pictures import COLORS, QUESTION, draw_square
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


@pytest.mark.slow
@pytest.mark.xdist_group("students")
def test_it_is_served_with_images_of_the_request_only(seeing_student: Path) -> None:
    setup = ServingSetup(export_gguf(seeing_student, "q8_0").path, None, None, {"temperature": 0, "max_tokens": 12}, "")

    async def ask(http: aiohttp.ClientSession, url: str, image: str, *, order: int = 1) -> tuple[int, Any]:
        parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": image}}][::order]
        body = {"model": "stillhouse", "messages": [{"role": "user", "content": parts}]}
        async with http.post(f"{url}/chat/completions", json=body) as response:
            return response.status, await response.json()

    async def converse() -> None:
        async with open_chat_router(setup, 1, 512, "student") as router, aiohttp.ClientSession() as http:
            session, place = CommandSession(), asyncio.get_running_loop().create_future()
            session.quiet = True
            task = asyncio.create_task(serve_router(router, "127.0.0.1", 0, session, place.set_result))
            url = await place
            right = 0
            for color in COLORS:
                answers = [await ask(http, url, draw_square(color, Random(color)), order=order) for order in (1, -1)]
                assert [status for status, _ in answers] == [200, 200], answers
                texts = [reply["choices"][0]["message"]["content"] for _, reply in answers]
                assert texts[0] == texts[1], "the order of text and image in the request does not matter"
                right += texts[0] == color
            assert right >= 4
            for image, fault in (
                ("http://127.0.0.1:9/a.png", "nothing is downloaded or opened"),
                ("file:///etc/passwd", "nothing is downloaded or opened"),
                ("data:image/png;base64,AAAA", "an image is no PNG, JPEG, WEBP, GIF, BMP or TIFF image"),
            ):
                status, reply = await ask(http, url, image)
                assert status == 400
                assert fault in reply["error"]["message"]
            session.stop.set()
            await task

    asyncio.run(converse())


TEXTS = [
    "Where is my parcel?", "The invoice was paid twice by credit card, and nobody answers.", "A greeting", "My courier " * 30,
]  # fmt: skip
OTHERS = ["x", "Größe 中文", "", "The courier lost the invoice. " * 90]


@pytest.mark.parametrize(
    ("name", "products"), [("bert", 6), ("distilbert", 6), ("modernbert", 4), ("mpnet", 6), ("roberta", 6)]
)
def test_exported_vectors_resemble_those_of_torch(name: str, products: int, tmp_path: Path) -> None:
    folder = save_tiny_encoder(tmp_path, name, TEXTS)
    exported = export_encoder(str(folder), TEXTS)
    texts = [*TEXTS, *OTHERS]
    rounded, plain = exported.encode_texts(texts), encode_by_transformers(str(folder), texts)
    assert rounded.shape == (8, 32)
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-6)
    assert (rounded * plain).sum(axis=1).min() > 0.99
    assert not np.allclose(rounded, plain, atol=1e-4)  # the products are really rounded
    np.testing.assert_array_equal(exported.encode_texts(texts[::-1])[::-1], rounded)
    graph = onnx.load_model_from_string(exported.model).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MatMulInteger") == 2 * products  # two layers
    assert all(
        np.prod(tensor.dims) < 1000 for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT
    )
    assert str(tmp_path).encode() not in exported.model


def test_a_tokenizer_in_python_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_encoder(tmp_path, "bert", TEXTS)
    (folder / "tokenizer.json").unlink()
    ByT5Tokenizer().save_pretrained(folder)
    assert encode_by_transformers(str(folder), TEXTS).shape == (4, 32)
    with pytest.raises(ExportError, match="its tokenizer is not one of the package tokenizers"):
        export_encoder(str(folder), TEXTS)


def test_missing_and_damaged_files_are_named_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"student.onnx and tokenizer.json, which encode its texts, cannot be used \(.*No such"
    ):
        read_exported_encoder(tmp_path)
    (tmp_path / "student.onnx").write_bytes(b"no graph")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"cannot be used \(.*INVALID_PROTOBUF"):
        read_exported_encoder(tmp_path)


ENCODED = [
    "Where is my parcel?", "The invoice was paid twice.", "A library for linear algebra in Rust", "word " * 400, "  ", "Ω ≠ ø",
]  # fmt: skip


@pytest.mark.skipif(find_embeddings_problem("onnx") is not None, reason="needs the extra `embeddings`")
def test_vectors_resemble_those_of_the_packaged_encoder() -> None:
    rounded, plain = encode_by_minilm(ENCODED), embed_texts(ENCODED)
    cosines = (rounded * plain).sum(axis=1)
    assert cosines[ENCODED.index("  ")] == 0
    assert np.delete(cosines, ENCODED.index("  ")).min() > 0.97
    assert not np.allclose(rounded, plain, atol=1e-3)  # the products are really rounded
    np.testing.assert_array_equal(encode_by_minilm(ENCODED[::-1])[::-1], rounded)
    products = [node for node in build_int8_encoder().graph.node if node.op_type == "DynamicQuantizeMatMul"]
    assert len(products) == 24, "six layers of four products: query, key and value are one"
