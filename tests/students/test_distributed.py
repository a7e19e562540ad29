import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.config.students import StudentConfig
from students.chat_encoding import Conversation
from students.training.student_training import train_student
from tests.students.conftest import quiet

SCRIPT = """
import os
import sys
from pathlib import Path
import torch
from core.config.students import StudentConfig
from students.training.student_training import train_student
from tests.students.conftest import conversations

torch.set_num_threads(1)
config = StudentConfig.model_validate_json(sys.argv[2])
report = print if os.environ["RANK"] == "0" else lambda line: None
train_student(conversations(), config, Path(sys.argv[1]), seed=7, progress=report)
"""


@pytest.mark.slow
def test_two_processes_train_the_same_student_as_one(
    talk: list[Conversation], config: StudentConfig, teacher: Path, tmp_path: Path
) -> None:
    """The last step of an epoch has one batch only, so that one of them has nothing to do."""
    adjusted = {"objective": {"sft": 1, "forward_kl": 1}, "distillation": {"teacher": str(teacher), "signals": "top_k"}}
    settings = {
        **config.model_dump(),
        **adjusted,
        "batch_size": 3,
        "accumulate": 2,
        "precision": "float32",
        "epochs": 3,
    }
    both = StudentConfig.model_validate({**settings, "patience": 3})
    (tmp_path / "both.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*command, str(tmp_path / "both.py"), str(tmp_path / "two"), both.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("bytes per token") == 1
    train_student(talk, both, tmp_path / "one", seed=7, progress=quiet)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-2, msg=name)
    log, same = ((tmp_path / name / "training_log.jsonl").read_text().splitlines() for name in ("one", "two"))
    for line, other in zip(map(json.loads, log), map(json.loads, same), strict=True):
        assert other == pytest.approx(line, rel=1e-4)
