"""Counts the calls and the bytes of images that a run of `image-questions` takes for a sample. A scripted teacher answers; its
faults are in its script.

python -m benchmarks.image_question_calls PHOTOS [--samples N]
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.children import run_process
from core.runs.run_dir import RunDir
from core.sample import SampleStatus
from core.storage.image_files import find_image_file
from flows.data.curated_run import read_finished_samples

SAMPLES = 200
ROLES = {"draft": "drafts", "look": "looks", "guess": "guesses"}


def count_calls(run: RunDir) -> Counter[str]:
    counts = Counter[str]()
    for sample in read_finished_samples(run):
        counts["samples"] += 1
        counts["verified"] += sample.state is SampleStatus.kept
        sizes = [find_image_file(name, [run.path]).stat().st_size for name in sample.candidate.images]
        for turn in sample.turns:
            guesses = bool(turn.context) and turn.context[0].content.startswith("You guess")
            role = "draft" if turn.agent == "generator" else "guess" if guesses else "look"
            counts[role] += 1
            counts["bytes"] += 0 if guesses else sum(sizes) * 4 // 3
    return counts


def format_measurement(photos: Path, samples: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            f"images.folder={photos.resolve()}",
            f"samples={samples}",
            "teachers.main={model='fake/image_questions'}",
        ]
        options = [part for setting in settings for part in ("--set", setting)]
        ended = run_process(
            [
                str(Path(sys.executable).with_name("stillhouse")),
                "run",
                "image-questions",
                *options,
                "--runs-dir",
                folder,
            ]
        )
        if ended.code:
            sys.exit(f"the run ended with {ended.code}: {ended.err[-2000:]}")
        counts = count_calls(RunDir(next(Path(folder).glob("image-questions-*"))))
    calls, seen = sum(counts[role] for role in ROLES), counts["draft"] + counts["look"]
    roles = ", ".join(f"{counts[role]} {name}" for role, name in ROLES.items())
    each = f"{calls / samples:.2f} calls a sample, {seen / samples:.2f} with the image, {counts['bytes'] / samples / 1e3:.0f} kB"
    return f"{counts['samples']} samples, {counts['verified']} kept: {calls} calls ({roles}); {each}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    asked = parser.parse_args()
    sys.stdout.write(f"{format_measurement(asked.photos, asked.samples)}\n")


if __name__ == "__main__":
    main()
