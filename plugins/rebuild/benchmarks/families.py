"""Makes releases of nine families by the replies of a recording, of a script or of the embedded teacher, and rebuilds them by
another environment's command.

    python -m plugins.rebuild.benchmarks.families FOLDER make
    python -m plugins.rebuild.benchmarks.families FOLDER rebuild /other/environment/bin/stillhouse
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
STILLHOUSE = str(Path(sys.executable).with_name("stillhouse"))
RECORDINGS = ROOT / "benchmarks" / "recordings"
EMBEDDED = "constrained-instructions"
FAMILIES = {
    "arithmetic": 12, "code": 60, "conversations": 24, "extraction": 12, "grounded-qa": 12, "instructions": 12,
    "reasoning": 12, "tool-calls": 12, EMBEDDED: 6,
}  # fmt: skip
"""Samples by recipe."""
COMMON = """extends = "{recipe}"
name = "{recipe}"
samples = {samples}
keep = 0
shard_size = 5
student = false
max_failed = 0.9
[collapse]
gate = false
[rebuild]
documents = true
"""
OWN = {
    "tool-calls": '[teachers.main]\nmodel = "fake/tool_calls"\n',  # its recordings are of an earlier form
    # What the embedded teacher wrote: fewer rules, and no check that reads; today's form has no other recording.
    "conversations": """[agents]
critic = false
[agents.generator]
examples = 2
max_tokens = 300
[task]
constraints = [1]
turns = [1, 2]
system = 0.0
contradictory = 0.0
[topology]
max_revisions = 1
[[verifiers]]
type = "constraints"
[teachers.main]
model = "fake/replay:conversations.jsonl"
""",
    EMBEDDED: "[agents]\ncritic = false\n",  # its critic reads token probabilities, which no recording has
}


def make(recipe: str, folder: Path) -> None:
    """A recorded reply is missing where prompts or checks have changed since: such a sample fails, there and in the rebuild."""
    (folder / f"{recipe}.toml").write_text(
        COMMON.format(recipe=recipe, samples=FAMILIES[recipe])
        + OWN.get(recipe, f'[teachers.main]\nmodel = "fake/replay:{recipe}.jsonl"\n')
    )
    words = ["run", f"{recipe}.toml", "--runs-dir", "runs", "--quiet"]
    recording = RECORDINGS / ("embedded" if recipe == "conversations" else "") / f"{recipe}.jsonl"
    if recording.exists():
        lines = recording.read_text().splitlines(keepends=True)[: FAMILIES[recipe]]
        (folder / f"{recipe}.jsonl").write_text("".join(lines))
        words += ["--set", f"seeds={{recording='{recipe}.jsonl'}}"]
    call(STILLHOUSE, words, folder)
    (run,) = (folder / "runs").glob(f"{recipe}-*")
    call(STILLHOUSE, ["release", run.name, "--runs-dir", "runs"], folder)


def rebuild(recipe: str, folder: Path, command: str) -> None:
    (place := folder / "elsewhere").mkdir(exist_ok=True)
    words = ["rebuild", str((folder / "releases" / recipe / "0").absolute()), "--json", "--quiet"]
    found = json.loads(call(command, words, place))
    states = [file["state"] for file in found["files"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    sys.stdout.write(f"{recipe}: files {counts}; {found['samples']} verdicts; {found['difference'] or 'equal'}\n")
    sys.stdout.write(f"  {'; '.join(found['environment'])}\n")


def call(command: str, words: list[str], folder: Path) -> str:
    done = subprocess.run([command, *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: samples failed, or files differ
        raise RuntimeError(f"{words[:2]}: exit {done.returncode}: {done.stderr[-600:]}")
    return done.stdout


def print_families() -> None:
    folder, verb, *command = Path(sys.argv[1]), *sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in FAMILIES:
        if verb == "make":
            make(recipe, folder)
        else:
            rebuild(recipe, folder, *command)


if __name__ == "__main__":
    print_families()
