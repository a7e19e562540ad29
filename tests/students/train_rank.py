"""One of the processes that train one student together, with the environment that `torchrun` gives it.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 python -m tests.students.train_rank FOLDER CONFIG
"""

import os
import sys
from pathlib import Path

import torch

from core.config.students import StudentConfig
from students.training.student_training import train_student
from tests.students.conftest import conversations, quiet

if __name__ == "__main__":
    _, folder, config = sys.argv
    torch.set_num_threads(1)
    report = print if os.environ["RANK"] == "0" else quiet
    train_student(conversations(), StudentConfig.model_validate_json(config), Path(folder), seed=7, progress=report)
