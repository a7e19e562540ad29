"""Writes the embedded teacher's replay conversations into smollm2-135m.jsonl: python data/replay/make.py"""

import sys
from pathlib import Path

from core.config.students import ReplayConfig
from students.init.start_model import start_from_layers
from students.signals.replay import load_replay

FILE = Path(__file__).with_name("smollm2-135m.jsonl")
EMBEDDED_LAYERS = 30

config = ReplayConfig()
start = start_from_layers(EMBEDDED_LAYERS)
rows = round(config.most / config.share)
load_replay(start.model.bfloat16(), start.tokenizer, config, rows, FILE, progress=lambda line: print(line, file=sys.stderr))
