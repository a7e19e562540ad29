import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.student_config import StudentConfig
from students.data import Conversation
from students.train import distill
from tests.students.conftest import quiet

SCRIPT = """
import os
import sys
from pathlib import Path
import torch
from core.recipe import StudentConfig
from students.train import distill
from tests.students.conftest import conversations

torch.set_num_threads(1)
config = StudentConfig.model_validate_json(sys.argv[2])
said = print if os.environ["RANK"] == "0" else lambda line: None
distill(conversations(), config, Path(sys.argv[1]), seed=7, progress=said)
"""


@pytest.mark.slow
def test_two_processes_make_the_student_of_one(
    talk: list[Conversation], config: StudentConfig, teacher: Path, tmp_path: Path
) -> None:
    """The last step of an epoch has one batch only, so that one of them has nothing to do."""
    told = {"objective": {"sft": 1, "forward_kl": 1}, "distillation": {"teacher": str(teacher), "signals": "top_k"}}
    settings = {**config.model_dump(), **told, "batch_size": 3, "accumulate": 2, "precision": "float32", "epochs": 3}
    both = StudentConfig.model_validate({**settings, "patience": 3})
    (tmp_path / "both.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*command, str(tmp_path / "both.py"), str(tmp_path / "two"), both.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("bytes a token") == 1
    distill(talk, both, tmp_path / "one", seed=7, progress=quiet)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-2, msg=name)
    log, same = ((tmp_path / name / "training_log.jsonl").read_text().splitlines() for name in ("one", "two"))
    for line, other in zip(map(json.loads, log), map(json.loads, same), strict=True):
        assert other == pytest.approx(line, rel=1e-4)
