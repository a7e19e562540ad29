"""What the settings of a student and of its start rule out, known without torch."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.config.students import StudentConfig, find_start_fault

LLAMA = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
TIED = {**LLAMA, "tie_word_embeddings": True}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 64}
TERNARY = {"type": "ternary"}
BITNET = "llama.cpp's bitnet does not compute; leave the step ternary out"
HYBRID = {"start": "random", "steps": [{"type": "hybrid"}]}


def find_fault(folder: Path, settings: dict[str, Any], *steps: dict[str, Any]) -> str | None:
    (folder / "config.json").write_text(json.dumps(settings))
    return find_start_fault(StudentConfig.model_validate({"start": str(folder), "steps": steps}))


@pytest.mark.parametrize(
    ("settings", "step", "fault"),
    [
        (LLAMA, TERNARY, f"has an output matrix besides the embedding, which {BITNET}"),
        ({**TIED, "attention_bias": True}, TERNARY, f"has biases, which {BITNET}"),
        ({**TIED, "mlp_bias": True}, TERNARY, f"has biases, which {BITNET}"),
        ({**TIED, "hidden_act": "gelu"}, TERNARY, f"has the activation 'gelu', which {BITNET}"),
        ({**TIED, "head_dim": 32}, TERNARY, f"has heads whose channels are not its hidden_size, which {BITNET}"),
        ({**TIED, "rope_parameters": LLAMA3}, TERNARY, f"has positions of the type 'llama3', which {BITNET}"),
        ({**TIED, "rope_scaling": {"type": "linear"}}, TERNARY, f"has positions of the type 'linear', which {BITNET}"),
        ({**TIED, "hidden_size": 320}, TERNARY, "has hidden_size = 320; ternary rows are stored in blocks of 256, so it"),
        ({"model_type": "qwen3", "hidden_size": 1024}, TERNARY, "is a 'qwen3'; a ternary student is a bitnet or llama"),
    ],
)  # fmt: skip
def test_a_start_that_a_step_rules_out_is_known_from_its_folder(
    settings: dict[str, Any], step: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    assert str(find_fault(tmp_path, settings, step)).startswith(fault)
    assert find_fault(tmp_path, settings) is None


@pytest.mark.parametrize(
    ("settings", "step"),
    [(TIED, TERNARY), ({**TIED, "rope_scaling": None, "head_dim": None}, TERNARY)],
)
def test_other_starts_can_become_the_student(settings: dict[str, Any], step: dict[str, Any], tmp_path: Path) -> None:
    assert find_fault(tmp_path, settings, step) is None


@pytest.mark.parametrize(
    ("step", "settings", "words"),
    [
        ({"type": "mtp", "depth": 2}, HYBRID, "depth = 2: llama.cpp drafts with one layer; use depth = 1"),
        ({"type": "mtp", "weight": 0}, HYBRID, "Input should be greater than 0"),
        (
            {"type": "mtp"},
            {**HYBRID, "objective": "forward_kl", "distillation": {"lmbda": 1}},
            "mtp: its layer learns from the data's answers, and distillation.lmbda = 1 uses none",
        ),
        ({"type": "hybrid"}, {}, "start = 'layers' has an architecture already"),
        ({"type": "hybrid"}, {"start": "some/model"}, "start = 'some/model' has an architecture already"),
        ({"type": "hybrid"}, {"start": "random", "layers": 3}, "layers = 3: only every 4th layer"),
        ({"type": "start_kl"}, {"start": "random"}, "start_kl: the weights of start = 'random' are untrained"),
        ({"type": "average_choice"}, {"average": 0.5}, "average is the share that it would choose"),
        ({"type": "mtp"}, {"start": "random"}, "mtp: llama.cpp drafts with such a layer of a hybrid only"),
        ({"type": "mtpp"}, HYBRID, "unknown step 'mtpp'; did you mean 'mtp'?"),
        ({"depth": 1}, HYBRID, "a step is a table with its type"),
        (
            {"type": "windows"},
            {},
            "window = 256: no conversation is longer than max_tokens = 256, so the window changes nothing",
        ),
        ({"type": "windows", "window": 8}, {"lora": {}}, "windows: low-rank adapters would not train the sinks"),
        ({"type": "windows", "window": 1}, {}, "greater than or equal to 2"),
        ({"type": "windows", "full_every": 1}, {}, "greater than or equal to 2"),
        ({"type": "windows"}, {**HYBRID, "max_tokens": 512}, "sliding windows need a Llama"),
        (
            {"type": "sparsity", "share": 0.5},
            {"start": "random"},
            "sparsity: the weights of start = 'random' are untrained",
        ),
        ({"type": "sparsity", "share": 0.5}, {"lora": {}}, "lora fills the zeros"),
        ({"type": "sparsity"}, {}, "give either share"),
        ({"type": "sparsity", "share": 0.5, "pattern": "2:4"}, {}, "give either share"),
        ({"type": "width", "hidden_size": 480}, {"start": "random"}, "makes the embedded teacher narrower"),
    ],
)
def test_what_a_student_cannot_have_is_one_sentence(step: dict[str, Any], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        StudentConfig.model_validate({**settings, "steps": [*settings.get("steps", ()), step]})
    [error] = caught.value.errors()
    assert words in error["msg"]


def test_a_step_is_named_once() -> None:
    with pytest.raises(ValidationError, match="mtp is named more than once"):
        StudentConfig.model_validate(
            {"start": "random", "steps": [{"type": "hybrid"}, {"type": "mtp"}, {"type": "mtp"}]}
        )
