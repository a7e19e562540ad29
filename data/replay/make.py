"""Writes the replay conversations of the embedded teacher, some 16 minutes of one core: python -m data.replay.make"""

import copy
import sys
from pathlib import Path

from core.config.students import ReplayConfig
from students.init.start_model import TEACHER_LAYERS, start_from_layers
from students.signals.replay import MIN_LEARNED, load_replay, locate_shipped_replay, replay_digest


def main() -> None:
    start, config = start_from_layers(TEACHER_LAYERS), ReplayConfig()
    writer = copy.deepcopy(start.model).bfloat16()
    path = locate_shipped_replay(replay_digest(writer, start.tokenizer, config))
    rows = round(max(config.most, MIN_LEARNED) / config.share)
    load_replay(writer, start.tokenizer, config, rows, path, progress=lambda line: print(line, file=sys.stderr))  # noqa: T201
    sys.stdout.write(f"{path.relative_to(Path.cwd())}\n")


if __name__ == "__main__":
    main()
