from typing import Any

import pytest
from pydantic import ValidationError

from core.config.identity_keys import find_later_defaults
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
        ({**HYBRID, "architecture": "mamba"}, "Input should be 'llama' or 'hybrid'"),
    ],
)
def test_what_a_hybrid_cannot_have_is_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        StudentConfig(**settings)
    [error] = caught.value.errors()
    assert words in error["msg"]


def test_the_key_counts_only_if_it_is_set() -> None:
    assert "architecture" in find_later_defaults(StudentConfig(start="random"))
    assert "architecture" not in find_later_defaults(StudentConfig(**HYBRID))
