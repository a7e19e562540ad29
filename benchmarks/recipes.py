"""The recipe that asks of us what `peers/work.py` asks of others: two calls a sample, one check by code, no revision."""

import json
from pathlib import Path

EQUAL_WORK = """name = "equal-work"
samples = {samples}
shard_size = 500
max_failed = 1.0
filters = []

[seeds]
path = "{seeds}"

[task]
constraints = [0]

[teachers.main]
model = "openai/model"
base_url = "{url}"
max_concurrent = {concurrency}

[topology]
max_revisions = 0

[agents.critic]
type = "teacher"
min_score = 1

[[verifiers]]
type = "on_topic"
"""


def write_equal_recipe(folder: Path, seeds: Path, samples: int, url: str, concurrency: int) -> Path:
    """The recipe as a file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "equal-work.toml"
    told = {"samples": samples, "seeds": seeds.resolve(), "url": url or "http://localhost", "concurrency": concurrency}
    path.write_text(EQUAL_WORK.format(**told), encoding="utf-8")
    return path


def write_seeds(path: Path, count: int, *, different: bool = True) -> Path:
    """Seeds for us and for peers; `different = False` asks for the same one `count` times."""
    rows = [{"topic": f"item-{i if different else 0}", "category": "", "words": ["item"]} for i in range(count)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path
