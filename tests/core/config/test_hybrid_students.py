from typing import Any

import pytest
from pydantic import ValidationError

from core.config.students import StudentConfig

HYBRID = {"start": "random", "architecture": "hybrid"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"architecture": "hybrid"}, "start = 'layers' has an architecture already"),
        ({**HYBRID, "start": "width"}, "start = 'width' has an architecture already"),
        ({**HYBRID, "start": "some/model"}, "start = 'some/model' has an architecture already"),
        ({**HYBRID, "layers": 3}, "layers = 3: only every 4th layer"),
        ({**HYBRID, "packing": True}, "packing: the memories of"),
        ({**HYBRID, "lora": {}}, "lora: the weights of start = 'random' are untrained"),
        ({**HYBRID, "sparsity": {"share": 0.5}}, "sparsity: the weights of start = 'random' are untrained"),
        ({**HYBRID, "replay": {}}, "replay: the weights of start = 'random' are untrained"),
        ({**HYBRID, "start_kl": 0.1}, "start_kl: the weights of start = 'random' are untrained"),
        ({**HYBRID, "average": 0.5}, "average: the weights of start = 'random' are untrained"),
        ({**HYBRID, "mtp": {"depth": 2}}, "depth = 2: llama.cpp drafts with one layer; use depth = 1"),
        ({**HYBRID, "mtp": {"weight": 0}}, "Input should be greater than 0"),
        (
            {**HYBRID, "mtp": {}, "objective": "forward_kl", "distillation": {"lmbda": 1}},
            "mtp: its layer learns from the data's answers, and distillation.lmbda = 1 uses none",
        ),
        ({**HYBRID, "weights": "ternary", "hidden_size": 256}, "a BitNet is no hybrid"),
        ({**HYBRID, "attention": {}, "max_tokens": 512}, "sliding windows need a Llama"),
        ({"start": "random", "mtp": {}}, "mtp: llama.cpp drafts with such a layer of architecture = "),
        ({**HYBRID, "architecture": "mamba"}, "Input should be 'llama' or 'hybrid'"),
    ],
)
def test_what_a_hybrid_cannot_have_is_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        StudentConfig(**settings)
    [error] = caught.value.errors()
    assert words in error["msg"]
