"""Trains students of a release again on other machines' terms, and prints how far their held-out losses are apart.

python -m plugins.rebuild.benchmarks.students FOLDER make                    # releases of two kinds of students
python -m plugins.rebuild.benchmarks.students FOLDER rebuild STILLHOUSE      # one line each; OMP_NUM_THREADS=1 for one thread
python -m plugins.rebuild.benchmarks.students FOLDER controls                # what is another student
"""

import json
import sys
from pathlib import Path
from typing import Any

from core.config.students import StudentConfig
from flows.data.curated_run import extract_conversations
from plugins.rebuild.benchmarks.families import RECORDINGS, STILLHOUSE, call
from students.training.student_training import train_student

RECIPE, SAMPLES = "arithmetic", 60
STUDENTS = {
    "random": """start = "random"\nlayers = 2\nhidden_size = 64\nvocabulary = 800\nepochs = 6\nlearning_rate = 3e-3""",
    "layers": """start = "layers"\nlayers = 2\nepochs = 2\nreplay = false\naverage = false""",
}
"""Of untrained weights, and of two layers of the embedded teacher in bf16."""
TEXT = """extends = "{recipe}"
name = "{name}"
samples = {samples}
keep = 0
max_failed = 0.9
[collapse]
gate = false
[rebuild]
[teachers.main]
model = "fake/replay:{recipe}.jsonl"
[student]
{student}
max_tokens = 192
batch_size = 4
evaluation = false
"""
CONTROLS: dict[str, dict[str, Any]] = {
    "another seed": {"seed": 8}, "a row less": {"rows": -1}, "a tenth of the rows less": {"rows": -0.1},
    "a rate 10 % higher": {"rate": 1.1},
}  # fmt: skip
"""Declared before any training: what the tolerance must not excuse, as far as it can."""


def make_release_with_student(name: str, folder: Path) -> None:
    (folder / f"{name}.toml").write_text(TEXT.format(recipe=RECIPE, name=name, samples=SAMPLES, student=STUDENTS[name]))
    (folder / f"{RECIPE}.jsonl").write_text((RECORDINGS / f"{RECIPE}.jsonl").read_text())
    seeds = f"seeds={{recording='{RECIPE}.jsonl'}}"
    call(STILLHOUSE, ["run", f"{name}.toml", "--runs-dir", "runs", "--quiet", "--set", seeds], folder)
    (run,) = (folder / "runs").glob(f"{name}-*")
    call(STILLHOUSE, ["release", run.name, "--runs-dir", "runs"], folder)


def rebuild_student(name: str, folder: Path, command: str) -> None:
    (place := folder / "elsewhere").mkdir(exist_ok=True)
    words = ["rebuild", str((folder / "releases" / name / "0").absolute()), "--student", "--json", "--quiet"]
    found = json.loads(call(command, words, place))
    there, here = found["losses"]
    sys.stdout.write(
        f"{name}: {there:.6f} there, {here:.6f} here, {here - there:+.6f}; {found['difference'] or 'equal'}\n"
    )
    sys.stdout.flush()


def train_controls(name: str, folder: Path) -> None:
    import polars as pl

    release = folder / "releases" / name / "0"
    record = json.loads((release / "manifest.json").read_text())["run"]["student"]
    recipe = json.loads((release / "recording/recipe.json").read_text())["recipe"]
    train, held_out = (
        extract_conversations(pl.read_parquet(release / f"dataset/{side}.parquet")) for side in ("train", "validation")
    )
    config = StudentConfig.model_validate(recipe["student"])
    for control, changes in {"the same": {}, **CONTROLS}.items():
        less = changes.get("rows", 0)
        rows = train[: len(train) + (round(less * len(train)) if isinstance(less, float) else less)]
        changed = config.model_copy(update={"learning_rate": config.learning_rate * changes.get("rate", 1)})
        out = folder / "controls" / name / control.replace(" ", "-")
        found = train_student(
            rows, changed, out, seed=changes.get("seed", recipe["seed"]), progress=lambda _: None, held_out=held_out
        )
        apart = found.loss_after - record["loss_after"]
        sys.stdout.write(f"{name}, {control}: {found.loss_after:.6f}, {apart:+.6f}\n")
        sys.stdout.flush()


def measure_students() -> None:
    folder, verb, *command = Path(sys.argv[1]), *sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    for name in STUDENTS:
        if verb == "make":
            make_release_with_student(name, folder)
        elif verb == "rebuild":
            rebuild_student(name, folder, *command)
        else:
            train_controls(name, folder)


if __name__ == "__main__":
    measure_students()
