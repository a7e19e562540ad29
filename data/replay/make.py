"""Writes the embedded teacher's replay conversations into smollm2-135m.jsonl: python data/replay/make.py

Writes them anew if the default settings of `student.replay`, or constants of `students.replay`, were changed.
"""

import sys

from core.config.students import ReplayConfig
from students.start_model import start_from_layers
from students.replay import PACKAGED_REPLAY, load_replay

config = ReplayConfig()
start = start_from_layers(30)
rows = round(config.most / config.share)
made = PACKAGED_REPLAY.with_suffix(".new")
load_replay(start.model.bfloat16(), start.tokenizer, config, rows, made, progress=lambda line: print(line, file=sys.stderr))
made.replace(PACKAGED_REPLAY)
