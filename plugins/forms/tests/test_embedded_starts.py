"""Starts from the embedded teacher, narrower and with windows."""

from pathlib import Path
from typing import Any

import pytest

from core.config.students import StudentConfig
from core.sample import Message
from students.chat_encoding import EncodedConversation, encode_conversation
from students.comparison import write_untrained_student
from students.gguf_export import export_gguf, read_student
from students.predictions import compute_held_out_loss
from students.training.student_training import train_student
from tests.students.test_embedded_teacher import SENTENCE
from tests.students.test_gguf_export import lowest_correlation
from tests.support.llama_cpp import llama_cpp

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("embedded")]

WIDTH = {"type": "width", "hidden_size": 288}


def test_a_narrow_student_has_the_teachers_weights_and_is_reproducible(tmp_path: Path) -> None:
    """With few words of the teacher, so that it is quick; exported too, since its heads do not fill its width."""
    talk = [
        [Message(role="user", content=f"Write about {word}."), Message(role="assistant", content=f"I like {word}.")]
        for word in ("bees", "owls", "tea", "maps")
    ]
    config = StudentConfig.model_validate({
        "layers": 2, "vocabulary": 1024, "epochs": 1, "learning_rate": 1e-5, "steps": [WIDTH],
    })  # fmt: skip
    record = train_student(talk, config, tmp_path / "student", seed=7, progress=lambda line: None, held_out=talk)
    assert (
        "with 1,024 of its 49,152 tokens, 288 of 576 channels wide" in (tmp_path / "student" / "README.md").read_text()
    )
    assert write_untrained_student(tmp_path / "student", tmp_path / "start")
    again, tokenizer = read_student(tmp_path / "start")
    encoded = [
        one
        for one in (encode_conversation(one, tokenizer, 256) for one in talk)
        if isinstance(one, EncodedConversation)
    ]
    assert compute_held_out_loss(again, encoded, 0) == pytest.approx(record.loss_before, rel=0.01)
    assert export_gguf(tmp_path / "student", "q8_0").bytes < again.num_parameters() * 1.3


@pytest.mark.parametrize(("start", "width", "steps"), [("layers", 576, [WIDTH]), ("random", 32, [])])
def test_each_embedded_start_gets_windows(start: str, width: int, steps: list[dict[str, Any]], tmp_path: Path) -> None:
    """Also where its heads do not fill its width. llama.cpp computes it on inputs of five windows."""
    talk = [
        [
            Message(role="user", content=f"Write about {word}."),
            Message(role="assistant", content=f"I like {word}, and I like it more and more, and more."),
        ]
        for word in ("bees", "owls", "tea", "maps")
    ]
    config = StudentConfig.model_validate({
        "start": start, "layers": 3, "hidden_size": width, "vocabulary": 1024, "epochs": 1, "learning_rate": 1e-3,
        "max_tokens": 64, "steps": [*steps, {"type": "windows", "window": 16, "full_every": 3}],
    })  # fmt: skip
    record = train_student(talk, config, tmp_path / "student", seed=7, progress=lambda line: None, held_out=talk)
    assert "with windows of 16 tokens in 2 of its 3 layers" in (tmp_path / "student" / "README.md").read_text()
    model, tokenizer = read_student(tmp_path / "student")
    assert all(layer.self_attn.sinks.abs().min() > 1e-4 for layer in model.model.layers), "trained, or of no weight"
    assert write_untrained_student(tmp_path / "student", tmp_path / "start")
    before, _ = read_student(tmp_path / "start")
    encoded = [encode_conversation(one, tokenizer, 64) for one in talk]
    usable = [one for one in encoded if isinstance(one, EncodedConversation)]
    assert compute_held_out_loss(before, usable, 0) == pytest.approx(record.loss_before, rel=0.01)
    ids = tokenizer(" ".join([SENTENCE] * 6), add_special_tokens=False)["input_ids"]
    with llama_cpp(export_gguf(tmp_path / "student", "f32").path) as loaded:
        assert lowest_correlation(model, loaded, ids) > 0.99999  # type: ignore[arg-type]
