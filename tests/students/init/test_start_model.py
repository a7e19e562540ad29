import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from core.config.students import StudentConfig
from core.errors import UsageError
from students.init.start_model import REMOVAL_ORDER, TEACHER_LAYERS, load_start_model, select_best_layers


def test_each_layer_is_removed_once_and_the_first_stays() -> None:
    assert sorted([0, *REMOVAL_ORDER]) == list(range(TEACHER_LAYERS))
    for count in range(1, TEACHER_LAYERS + 1):
        layers = select_best_layers(count)
        assert layers == sorted(set(layers))
        assert (len(layers), layers[0]) == (count, 0)


@pytest.mark.parametrize(("answers", "why"), [(False, "cannot be reached"), (True, "does not answer within 0.2 s")])
def test_an_unreachable_hub_is_named_within_seconds(
    answers: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`answers`: it takes the connection and is silent from then on. The hub's own client would try for over a minute."""
    with socket.socket() as hub:
        hub.bind(("127.0.0.1", 0))
        if answers:
            hub.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0.2")
        with pytest.raises(
            UsageError, match=rf"'some/model' is neither a folder .* {why} .*name the folder .*HF_HUB_OFFLINE=1"
        ):
            load_start_model(StudentConfig(start="some/model"))
