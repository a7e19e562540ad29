"""How fast a GGUF file decodes in llama.cpp and what memory that takes, in a process of its own.

Knows no teacher's protocol beyond one plain completion.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from statistics import median
from typing import NamedTuple

from core.errors import ProviderError
from core.recipe import TeacherConfig

PROMPT = "The bees left their hive early in the morning and flew over the wide green fields. " * 4
TOKENS = 128
TRIES = 3
LONGEST_SECONDS = 600


class Speed(NamedTuple):
    """Tokens a second of one conversation alone: medians of `TRIES`."""

    decoded: float
    read: float
    memory: int
    """Bytes that loading and answering added at their peak; pages of the file count once they were read."""


def speed_of(weights: Path) -> Speed:
    """Raises ProviderError where the file cannot be loaded, or says nothing for too long."""
    command = [sys.executable, "-m", __name__, str(weights.resolve())]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ProviderError(f"{weights}: its speed cannot be measured: nothing in {LONGEST_SECONDS} s") from None
    if done.returncode:
        raise ProviderError(f"{weights}: its speed cannot be measured: {done.stderr.strip().splitlines()[-1]}")
    return Speed(**json.loads(done.stdout))


def _resident(which: str) -> int:
    """Bytes of this process, now (`VmRSS`) or at its peak (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{which}:"))


def _measured(weights: str) -> Speed:
    from agents.teachers.local import start

    server = start(weights, TeacherConfig(model=f"local/{weights}", max_concurrent=1))
    timings = [_completion(server.listening_address, f"{number}. {PROMPT}") for number in range(TRIES)]
    decoded, read = (median(one[f"{part}_per_second"] for one in timings) for part in ("predicted", "prompt"))
    return Speed(round(decoded, 1), round(read, 1), 0)


def _completion(address: str, prompt: str) -> dict[str, float]:
    asked = {"prompt": prompt, "n_predict": TOKENS, "temperature": 0, "ignore_eos": True}
    request = urllib.request.Request(
        f"{address}/completion", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        timings: dict[str, float] = json.load(response)["timings"]
    return timings


def main() -> None:
    import xllamacpp  # noqa: F401  # what it takes by itself is not the model's

    before = _resident("VmRSS")
    try:
        speed = _measured(sys.argv[1])
    except ProviderError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(speed._replace(memory=_resident("VmHWM") - before)._asdict()))


if __name__ == "__main__":
    main()
