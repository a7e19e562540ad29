import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.config.students import StudentConfig
from students.chat_encoding import Conversation
from students.training.student_training import train_student
from tests.students.conftest import quiet
from tests.support.forked import COMMAND_FORKS


@pytest.mark.slow
def test_two_processes_train_the_same_student_as_one(
    talk: list[Conversation], config: StudentConfig, teacher: Path, tmp_path: Path
) -> None:
    """The last step of an epoch has one batch only, so that one of them has nothing to do. The command of docs/gpu-training.md
    is run with `torchrun` itself (tests/test_docs.py)."""
    adjusted = {"objective": {"sft": 1, "forward_kl": 1}, "distillation": {"teacher": str(teacher), "signals": "top_k"}}
    settings = {
        **config.model_dump(),
        **adjusted,
        "batch_size": 3,
        "accumulate": 2,
        "precision": "float32",
        "epochs": 3,
        "replay": {"share": 1.0, "most": 16, "max_tokens": 16},
        "start_kl": 0.1,
    }
    both = StudentConfig.model_validate({**settings, "patience": 3})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = ("tests.students.train_rank", str(tmp_path / "two"), both.model_dump_json())
    ranks = [COMMAND_FORKS.start(*words, RANK=rank, LOCAL_RANK=rank, **together) for rank in ("0", "1")]
    printed = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    assert "".join(printed).count("bytes per token") == 1
    train_student(talk, both, tmp_path / "one", seed=7, progress=quiet)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-2, msg=name)
    log, same = ((tmp_path / name / "training_log.jsonl").read_text().splitlines() for name in ("one", "two"))
    for line, other in zip(map(json.loads, log), map(json.loads, same), strict=True):
        assert other == pytest.approx(line, rel=1e-4)
