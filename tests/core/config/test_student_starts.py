import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.config.student_starts import find_start_fault
from core.config.students import StudentConfig

LLAMA = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
HYBRID = {"model_type": "qwen3_5_text"}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 64}


def find_fault(folder: Path, settings: dict[str, Any], student: dict[str, Any]) -> str | None:
    (folder / "config.json").write_text(json.dumps(settings))
    return find_start_fault(StudentConfig(start=str(folder), **student))


@pytest.mark.parametrize(
    ("settings", "student", "fault"),
    [
        (HYBRID, {"packing": True}, "has memories, which would carry over from one conversation of a row to the next; use"),
        ({**HYBRID, "layer_types": ["linear_attention", "full_attention"]}, {"packing": True}, "has memories, which"),
    ],
)  # fmt: skip
def test_a_start_that_the_settings_of_the_student_rule_out_is_known_from_its_folder(
    settings: dict[str, Any], student: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    assert str(find_fault(tmp_path, settings, student)).startswith(fault)
    assert find_fault(tmp_path, settings, {}) is None


@pytest.mark.parametrize(
    ("settings", "student"),
    [
        (LLAMA, {"packing": True}),
        ({**HYBRID, "layer_types": ["full_attention"] * 2}, {"packing": True}),
    ],
)
def test_other_starts_can_become_the_student(settings: dict[str, Any], student: dict[str, Any], tmp_path: Path) -> None:
    assert find_fault(tmp_path, settings, student) is None


@pytest.mark.parametrize("text", ["[]", "{", '"llama"'])
def test_a_folder_without_a_configuration_is_no_start(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert find_start_fault(StudentConfig(start=str(tmp_path))) == "has a config.json that is no JSON object"
    assert find_start_fault(StudentConfig(start=str(tmp_path / "elsewhere"))) is None


HYBRID_STUDENT = {"start": "random", "architecture": "hybrid"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"architecture": "hybrid"}, "start = 'layers' has an architecture already"),
        ({**HYBRID_STUDENT, "start": "some/model"}, "start = 'some/model' has an architecture already"),
        ({**HYBRID_STUDENT, "layers": 3}, "layers = 3: only every 4th layer"),
        ({**HYBRID_STUDENT, "packing": True}, "packing: the memories of"),
        ({**HYBRID_STUDENT, "lora": {}}, "lora: the weights of start = 'random' are untrained"),
        ({**HYBRID_STUDENT, "replay": {}}, "replay: the weights of start = 'random' are untrained"),
        ({**HYBRID_STUDENT, "start_kl": 0.1}, "start_kl: the weights of start = 'random' are untrained"),
        ({**HYBRID_STUDENT, "average": 0.5}, "average: the weights of start = 'random' are untrained"),
        ({**HYBRID_STUDENT, "architecture": "mamba"}, "Input should be 'llama' or 'hybrid'"),
    ],
)
def test_what_a_hybrid_cannot_have_is_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        StudentConfig(**settings)
    [error] = caught.value.errors()
    assert words in error["msg"]
